// Ten thousand leases: one event stays cheap, and what is kept beside the leases is what a recount finds.
import { expect, it } from 'vitest';
import { countLeases } from './derive.ts';
import { indexOf, LeaseIndex } from './lease-index.ts';
import { initialState, step } from './machine.ts';
import { machineStateSchema } from './schema.ts';
import type { LeaseEntry, MachineEvent, MachineState, Policy } from './types.ts';

const CLIENTS = 10_000;
/** A kind of event may take this much on average, milliseconds. */
const MOST_MS = 1;

const POLICY: Policy = {
  mode: 'synchronous',
  goal: CLIENTS,
  minimum: 3,
  ownFileMinimum: 5,
  deterministic: false,
  seed: 'weft',
  tasks: ['a', 'b', 'c'],
  ranks: [1, 2, 4],
  stratify: false,
  concurrency: CLIENTS,
  maxStaleness: 10,
  rounds: 3,
  selectionMs: 60_000,
  graceMs: 5_000,
  trainingMs: 1_000_000,
  mergingMs: 30_000,
  lateMs: 30_000,
  restMs: 1_000,
};

const wish = (i: number): MachineEvent => ({
  type: 'wish',
  wish: {
    leaseId: `l${i}`,
    clientId: `c${i}`,
    key: `c${i}`,
    rank: [1, 2, 4][i % 3] ?? 1,
    task: null,
    own: i % 50 === 0,
  },
});

it.each(['synchronous', 'buffered'] as const)('one event at 10,000 leases takes well under 1 ms: %s', (mode) => {
  let state: MachineState = step(initialState({ ...POLICY, mode }), { type: 'start' }).state;
  const average = (events: readonly MachineEvent[]): number => {
    const startedAt = performance.now();
    for (const event of events) state = step(state, event).state;
    return (performance.now() - startedAt) / events.length;
  };
  const all = Array.from({ length: CLIENTS }, (_, i) => i);
  const took = {
    wish: average(all.map(wish)),
    elapsed: average(Array.from({ length: 200 }, () => ({ type: 'elapsed', ms: 1 }))),
    lost: average(all.slice(0, 500).map((i) => ({ type: 'lost', leaseId: `l${i}`, reason: 'gone', late: true }))),
    uploaded: average(all.slice(500, 5_000).map((i) => ({ type: 'uploaded', leaseId: `l${i}` }))),
    again: average(all.slice(0, 500).map((i) => wish(CLIENTS + i))),
  };
  expect(countLeases(state.leases)).toMatchObject({ uploaded: 4_500, dropped: 500 });
  expect(state.late).toHaveLength(500);
  for (const [kind, ms] of Object.entries(took)) expect(ms, `${kind} took ${ms} ms`).toBeLessThan(MOST_MS);
  // What the list has inherited is what is found by looking through it.
  expect({ ...indexOf(state.leases) }).toEqual({ ...new LeaseIndex(state.leases) });
});

it('a state written before late work and buffers goes on as it was', () => {
  const { mode: _m, ranks: _r, stratify: _s, concurrency: _c, maxStaleness: _x, lateMs: _l, ...policy } = POLICY;
  const { late: _late, merge: _merge, failures: _f, ending: _e, ...rest } = initialState(POLICY);
  const lease = {
    leaseId: 'l1',
    clientId: 'c1',
    key: 'c1',
    rank: 1,
    task: 'a',
    own: false,
    state: 'live',
    reason: null,
  };
  const read = machineStateSchema.parse({
    ...rest,
    policy,
    run: 'running',
    phase: 'training',
    round: 4,
    version: 2,
    leases: [lease],
  });
  expect(read.leases).toEqual<LeaseEntry[]>([{ ...lease, state: 'live', round: 4, version: 2 }]);
  expect(read).toMatchObject({ late: [], merge: null, failures: 0, policy: { mode: 'synchronous', lateMs: 0 } });
  // Without late work a lease that is lost is over.
  expect(step(read, { type: 'lost', leaseId: 'l1', reason: 'gone', late: true }).state.late).toEqual([]);
});
