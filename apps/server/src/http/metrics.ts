// /metrics for Prometheus: what the runs are doing, counted when asked; what came in, counted as it comes; and the process
// itself. docs/metrics.md describes every one, and a test compares. No label names a client.
import { VOLUNTEER_REQUESTS } from '@weft/protocol';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry as MetricsRegistry } from 'prom-client';
import type { Alerts } from '../alerts/start.ts';
import { countLeases } from '../coordinator/derive.ts';
import type { RunEvents } from '../runs/events.ts';
import type { RunObserver } from '../runs/observer.ts';
import type { Registry } from '../runs/registry.ts';
import type { Pressure } from '../sockets/pressure.ts';
import type { SlowReaders } from '../sockets/slow-readers.ts';
import type { History } from '../store/database.ts';

/** Counts the answers to one volunteer's messages. */
export interface AnswerMeter {
  /** `code`: of the error; null where there is none. `ms`: from the message to its acknowledgement. */
  answered(event: string, code: string | null, ms: number, bytes: number): void;
}

/** What is counted when asked. */
export interface Measured {
  readonly registry: Registry;
  readonly history: History;
  readonly alerts: Alerts;
  /** Jobs that wait for a merge process. */
  readonly mergesWaiting: () => number;
  readonly pressure: Pressure;
  readonly slowReaders: SlowReaders;
}

const PHASES = ['idle', 'selecting', 'training', 'merging', 'committed', 'abandoned'] as const;
const known = (event: string): string => (Object.hasOwn(VOLUNTEER_REQUESTS, event) ? event : 'unknown');

/** Metrics of one server. Its registry is its own, so that two servers may live in one process. */
export class Metrics implements Pick<RunObserver, 'event'> {
  readonly registry = new MetricsRegistry();
  readonly #answers;
  readonly #answerSeconds;
  readonly #bytesIn;
  readonly #accepted;
  readonly #refused;
  readonly #quarantined;
  readonly #uploadSeconds;
  readonly #mergeSeconds;
  readonly #mergeFailures;

  constructor() {
    const registers = [this.registry];
    collectDefaultMetrics({ register: this.registry });
    const counter = <L extends string>(name: string, help: string, labelNames: L[]) =>
      new Counter({ name, help, labelNames, registers });
    const seconds = <L extends string>(name: string, help: string, labelNames: L[], buckets: number[]) =>
      new Histogram({ name, help, labelNames, buckets, registers });
    this.#answers = counter('weft_messages_total', 'Messages of volunteers by name and answer.', ['event', 'code']);
    this.#answerSeconds = seconds(
      'weft_ack_seconds',
      'Seconds from a volunteer’s message to its acknowledgement.',
      ['event'],
      [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30],
    );
    this.#bytesIn = counter('weft_bytes_in_total', 'Bytes of volunteers’ messages.', []);
    this.#accepted = counter('weft_uploads_accepted_total', 'Uploads with a receipt.', ['run']);
    this.#refused = counter('weft_uploads_refused_total', 'Upload messages answered with an error.', ['run', 'code']);
    this.#quarantined = counter('weft_uploads_quarantined_total', 'Uploads set aside at the merge.', ['run']);
    this.#uploadSeconds = seconds(
      'weft_upload_seconds',
      'Seconds from an upload’s announcement to its receipt.',
      ['run'],
      [0.1, 0.5, 1, 5, 15, 60, 300, 900],
    );
    this.#mergeSeconds = seconds(
      'weft_merge_seconds',
      'Seconds a committed merge took.',
      ['run'],
      [0.1, 0.5, 1, 5, 15, 60, 300, 900],
    );
    this.#mergeFailures = counter('weft_merge_failures_total', 'Merges that failed.', ['run']);
  }

  event<T extends keyof RunEvents>(run: string, type: T, detail: RunEvents[T]): void {
    if (type === 'uploaded') this.#accepted.inc({ run });
    else if (type === 'quarantined') this.#quarantined.inc({ run });
    else if (type === 'merge-failed') this.#mergeFailures.inc({ run });
    else if (type === 'committed') {
      this.#mergeSeconds.observe({ run }, (detail as RunEvents['committed']).record.mergeMs / 1000);
    }
  }

  /** For one socket. `run`: of the volunteer, once it is known. `refused` hears of uploads that were refused. */
  meter(run: () => string | undefined, refused: (run: string, code: string) => void): AnswerMeter {
    let announcedAt: number | null = null;
    return {
      answered: (event, code, ms, bytes) => {
        const name = known(event);
        this.#answers.inc({ event: name, code: code ?? 'ok' });
        this.#answerSeconds.observe({ event: name }, ms / 1000);
        if (bytes > 0) this.#bytesIn.inc(bytes);
        if (!name.startsWith('upload:')) return;
        const runId = run();
        if (runId === undefined) return;
        if (code !== null) {
          this.#refused.inc({ run: runId, code });
          refused(runId, code);
        } else if (name === 'upload:begin') {
          announcedAt = performance.now();
        } else if (name === 'upload:commit' && announcedAt !== null) {
          this.#uploadSeconds.observe({ run: runId }, (performance.now() - announcedAt) / 1000);
          announcedAt = null;
        }
      },
    };
  }

  /** Adds what is counted when asked. Once. */
  measure({ registry, history, alerts, mergesWaiting, pressure, slowReaders }: Measured): void {
    const { center, watch, webhook } = alerts;
    const gauge = (name: string, help: string, labelNames: string[], collect: (gauge: Gauge) => void) =>
      new Gauge({
        name,
        help,
        labelNames,
        registers: [this.registry],
        collect() {
          this.reset();
          collect(this);
        },
      });
    const perRun = (name: string, help: string, label: string, values: (runId: string) => Record<string, number>) =>
      gauge(name, help, ['run', label], (made) => {
        for (const { runId } of registry.all()) {
          for (const [value, n] of Object.entries(values(runId))) made.set({ run: runId, [label]: value }, n);
        }
      });
    gauge('weft_clients_here', 'Volunteers connected to the run.', ['run'], (made) => {
      for (const run of registry.all()) made.set({ run: run.runId }, run.roundView().here);
    });
    perRun('weft_leases', 'Leases of the round in progress by state.', 'state', (id) => {
      const { training, uploaded, quarantined, dropped } = countLeases(registry.get(id).state.leases);
      return { training, uploaded, quarantined, dropped };
    });
    perRun('weft_rounds', 'Ended rounds by outcome.', 'outcome', (id) => {
      const records = registry.get(id).roundFiles();
      const committed = records.filter(({ record }) => record.outcome === 'committed').length;
      return { committed, abandoned: records.length - committed };
    });
    perRun('weft_round_phase', '1 for the phase the run’s round is in, else 0.', 'phase', (id) =>
      Object.fromEntries(PHASES.map((phase) => [phase, registry.get(id).state.phase === phase ? 1 : 0])),
    );
    gauge('weft_round_phase_seconds', 'Seconds since the last change of phase, round or version.', ['run'], (made) => {
      for (const { runId } of registry.all()) made.set({ run: runId }, watch.phaseMs(runId) / 1000);
    });
    gauge('weft_queue_depth', 'Works that wait, by queue.', ['queue'], (made) => {
      made.set({ queue: 'index' }, history.behind);
      made.set({ queue: 'merge' }, mergesWaiting());
      made.set({ queue: 'webhook' }, webhook?.waiting ?? 0);
    });
    gauge('weft_admissions_per_second', 'Newcomers the server takes a second at present, at most.', [], (made) =>
      made.set(pressure.pace.perSecond),
    );
    gauge('weft_newcomers_told_to_wait', 'Newcomers told to come back later, since the start.', [], (made) =>
      made.set(pressure.pace.turnedAway),
    );
    gauge('weft_slow_readers_closed', 'Connections closed because their other side did not read.', [], (made) =>
      made.set(slowReaders.closed),
    );
    gauge('weft_index_up', '1 while the history index can be written, or has not been needed yet.', [], (made) =>
      made.set(history.problem === null ? 1 : 0),
    );
    gauge('weft_disk_free_bytes', 'Bytes free on the data folder’s disk.', [], (made) => {
      if (watch.freeBytes !== null) made.set(watch.freeBytes);
    });
    gauge(
      'weft_alerts',
      'Alerts that stand, by kind and run; the server’s have an empty run.',
      ['kind', 'run'],
      (made) => {
        for (const { kind, run } of center.active()) made.set({ kind, run: run ?? '' }, 1);
      },
    );
    gauge('weft_webhook_alerts', 'Alerts since the start, by what became of them.', ['outcome'], (made) => {
      made.set({ outcome: 'delivered' }, webhook?.delivered ?? 0);
      made.set({ outcome: 'lost' }, webhook?.lost ?? 0);
    });
  }
}
