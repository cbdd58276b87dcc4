// The operator's evaluator against the in-memory coordinator.

import { sha256Hex } from '@weft/formats';
import { ProtocolError } from '@weft/protocol';
import { describe, expect, it } from 'vitest';
import { type EvaluatorEvent, EvaluatorSession } from './evaluator.ts';
import { generateKeys, identityOf, sameIdentity } from './identity.ts';
import { MemoryStorage, TestTrainer } from './testing/bench.ts';
import { factors } from './testing/blobs.ts';
import { Coordinator } from './testing/coordinator.ts';
import { eventually, FakeClock } from './testing/fake-clock.ts';

async function makeEvaluator() {
  const coordinator = await Coordinator.create();
  const wire = coordinator.connect();
  const clock = new FakeClock();
  const trainer = new TestTrainer();
  const session = new EvaluatorSession({
    transport: wire,
    downloads: coordinator.downloads,
    storage: new MemoryStorage(),
    trainer,
    identities: sameIdentity(await identityOf(await generateKeys(false))),
    clock,
    client: { kind: 'cli', version: 'test' },
    name: null,
    runId: null,
    operatorToken: 'secret',
  });
  const events: EvaluatorEvent[] = [];
  session.subscribe((event) => events.push(event));
  const adapter = factors(8, 1);
  coordinator.blobs.set(await sha256Hex(adapter), adapter);
  const grant = { rank: 8, alpha: 16, rankPattern: {}, alphaPattern: {}, targets: ['q_proj' as const] };
  const addJob = async (version: number) =>
    coordinator.jobs.push({
      jobId: `job-${version}`,
      runId: 'test-run',
      version,
      adapter: version === 0 ? null : { sha256: await sha256Hex(adapter), bytes: adapter.length },
      grant,
      tasks: ['yesno', 'colour'],
      sequenceLength: 64,
      baseDtype: 'f32',
    });
  return { coordinator, wire, clock, trainer, session, events, addJob };
}

describe('EvaluatorSession', () => {
  it('measures every version and ends with the run', async () => {
    const { coordinator, session, events, addJob, wire, trainer } = await makeEvaluator();
    await addJob(0);
    const running = session.run(new AbortController().signal);
    await eventually(() => events.some((event) => event.kind === 'idle'), 'it waits for work');
    expect(coordinator.evaluations[0]?.results).toMatchObject([
      { task: 'yesno', loss: 3, rows: 1 },
      { task: 'colour', loss: 3, rows: 1 },
    ]);
    await addJob(1);
    coordinator.announceEvaluation(1);
    await eventually(() => coordinator.evaluations.length === 2, 'version 1 is measured');
    expect(coordinator.evaluations[1]?.results[0]?.loss).toBe(2);
    coordinator.setRun({ state: 'completed' });
    const measured = await running;
    expect(measured.map((evaluation) => evaluation.version)).toEqual([0, 1]);
    expect(coordinator.sent[0]?.payload).toMatchObject({ operatorToken: 'secret' });
    expect(wire.isClosed && trainer.closed).toBe(true);
  });

  it('goes on when another evaluator had the job, and gives up when refused for the same one again', async () => {
    const { coordinator, session, events, addJob } = await makeEvaluator();
    await addJob(1);
    coordinator.intercept = (event) => {
      if (event === 'evaluation:report') throw new ProtocolError('evaluation-refused', 'Not your job.');
      return undefined;
    };
    await expect(session.run(new AbortController().signal)).rejects.toMatchObject({ code: 'evaluation-refused' });
    expect(events.filter((event) => event.kind === 'refused')).toHaveLength(1);
  });

  it('stops at its signal', async () => {
    const { session, events } = await makeEvaluator();
    const abort = new AbortController();
    const running = session.run(abort.signal);
    await eventually(() => events.some((event) => event.kind === 'idle'), 'it waits for work');
    abort.abort(new Error('enough'));
    await expect(running).rejects.toThrow('enough');
  });
});
