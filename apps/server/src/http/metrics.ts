// /metrics for Prometheus: what the runs are doing, counted when asked, and the process itself.
import { collectDefaultMetrics, Gauge, Registry as MetricsRegistry } from 'prom-client';
import { countLeases } from '../coordinator/derive.ts';
import type { Registry } from '../runs/registry.ts';

/** Metrics of one server. Its registry is its own, so that two servers may live in one process. */
export function createMetrics(registry: Registry): MetricsRegistry {
  const metrics = new MetricsRegistry();
  collectDefaultMetrics({ register: metrics });
  const perRun = (name: string, help: string, values: (runId: string) => [Record<string, string>, number][]) =>
    new Gauge({
      name,
      help,
      labelNames: ['run', 'state'],
      registers: [metrics],
      collect() {
        this.reset();
        for (const { runId } of registry.all()) {
          for (const [labels, value] of values(runId)) this.set({ run: runId, ...labels }, value);
        }
      },
    });
  perRun('weft_clients_here', 'Volunteers connected to the run.', (id) => [[{}, registry.get(id).roundView().here]]);
  perRun('weft_leases', 'Leases of the round in progress by state.', (id) => {
    const { training, uploaded, quarantined, dropped } = countLeases(registry.get(id).state.leases);
    return [
      [{ state: 'training' }, training],
      [{ state: 'uploaded' }, uploaded],
      [{ state: 'quarantined' }, quarantined],
      [{ state: 'dropped' }, dropped],
    ];
  });
  perRun('weft_rounds', 'Ended rounds by outcome.', (id) => {
    const records = registry.get(id).roundFiles();
    const of = (outcome: string) => records.filter(({ record }) => record.outcome === outcome).length;
    return [
      [{ state: 'committed' }, of('committed')],
      [{ state: 'abandoned' }, of('abandoned')],
    ];
  });
  perRun('weft_last_merge_ms', 'Milliseconds the last merge took.', (id) => {
    const last = registry
      .get(id)
      .roundFiles()
      .findLast(({ global }) => global !== null);
    return last ? [[{}, last.record.mergeMs]] : [];
  });
  return metrics;
}
