import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { countLeases, minimumFor, selectionLimit } from './derive.ts';
import { initialState, step } from './machine.ts';
import type { Effect, MachineEvent, MachineState, Policy } from './types.ts';

const POLICY: Policy = {
  mode: 'synchronous',
  goal: 4,
  minimum: 3,
  ownFileMinimum: 5,
  deterministic: false,
  seed: 'weft',
  tasks: ['a', 'b', 'c'],
  ranks: [1, 2, 4],
  stratify: false,
  concurrency: 4,
  maxStaleness: 3,
  rounds: 3,
  selectionMs: 60_000,
  graceMs: 5_000,
  trainingMs: 100_000,
  mergingMs: 30_000,
  lateMs: 20_000,
  restMs: 1_000,
};

/** Feeds events one after the other and keeps all effects. */
class Round {
  state: MachineState;
  effects: Effect[] = [];

  constructor(policy: Partial<Policy> = {}) {
    this.state = initialState({ ...POLICY, ...policy });
  }

  feed(...events: MachineEvent[]): this {
    for (const event of events) {
      const { state, effects } = step(this.state, event);
      this.state = state;
      this.effects.push(...effects);
    }
    return this;
  }

  wish(...names: string[]): this {
    const events = names.map<MachineEvent>((name) => ({
      type: 'wish',
      wish: {
        leaseId: `${name}-${this.state.round}-${this.effects.length}`,
        clientId: name,
        key: name,
        rank: 4,
        task: null,
        own: false,
      },
    }));
    for (const event of events) this.feed(event);
    return this;
  }

  lease(name: string): string {
    const lease = this.state.leases.findLast((entry) => entry.clientId === name);
    if (!lease) throw new Error(`${name} has no lease`);
    return lease.leaseId;
  }

  upload(...names: string[]): this {
    for (const name of names) this.feed({ type: 'uploaded', leaseId: this.lease(name) });
    return this;
  }

  lose(name: string): this {
    return this.feed({ type: 'lost', leaseId: this.lease(name), reason: 'expired' });
  }

  elapse(ms: number): this {
    return this.feed({ type: 'elapsed', ms });
  }

  granted(): string[] {
    return this.effects.flatMap((effect) => (effect.type === 'granted' ? [effect.lease.clientId] : []));
  }
}

describe('selection', () => {
  it('closes 5 s after the goal is reached', () => {
    const round = new Round().feed({ type: 'start' }).wish('a', 'b', 'c', 'd');
    expect(round.state.phase).toBe('selecting');
    expect(round.elapse(4_999).state.phase).toBe('selecting');
    expect(round.elapse(1).state.phase).toBe('training');
    expect(round.state.places).toBe(4);
  });

  it('closes at once at ⌈1.3·goal⌉ leases, and the next waits', () => {
    const round = new Round().feed({ type: 'start' }).wish('a', 'b', 'c', 'd', 'e', 'f', 'g');
    expect(round.state.phase).toBe('training');
    expect(round.granted()).toEqual(['a', 'b', 'c', 'd', 'e', 'f']);
    expect(round.state.wishes.map((wish) => wish.clientId)).toEqual(['g']);
  });

  it.each([
    [4, 6],
    [10, 13],
    [70, 91],
    [3, 4],
  ])('takes at most ⌈1.3·%i⌉ = %i', (goal, limit) => {
    expect(selectionLimit({ ...POLICY, goal })).toBe(limit);
  });

  it('goes on at its deadline with the minimum, else is abandoned with a reason and opens again', () => {
    expect(new Round().feed({ type: 'start' }).wish('a', 'b', 'c').elapse(60_000).state.phase).toBe('training');
    const short = new Round().feed({ type: 'start' }).wish('a', 'b').elapse(60_000);
    expect(short.state.phase).toBe('abandoned');
    expect(short.state.reason).toBe('Selection ended with 2 volunteers; 3 are needed.');
    expect(short.state.leases.map((lease) => lease.state)).toEqual(['dropped', 'dropped']);
    short.elapse(1_000);
    expect([short.state.phase, short.state.round, short.state.version]).toEqual(['selecting', 2, 0]);
  });

  it('abandons nothing while nobody has come', () => {
    expect(new Round().feed({ type: 'start' }).elapse(10 ** 7).state.phase).toBe('selecting');
  });

  it('asks for five when own files are in play', () => {
    const round = new Round({ goal: 5 }).feed({ type: 'start' }).wish('a', 'b', 'c');
    round.feed({ type: 'wish', wish: { leaseId: 'own', clientId: 'd', key: 'd', rank: 1, task: null, own: true } });
    expect(round.elapse(60_000).state.reason).toBe(
      'Selection ended with 4 volunteers; 5 are needed when own files are in play.',
    );
  });

  it('gives tasks by turns, another first each round', () => {
    const round = new Round({ rounds: 2 }).feed({ type: 'start' }).wish('a', 'b', 'c', 'd').elapse(5_000);
    expect(round.state.leases.map((lease) => lease.task)).toEqual(['a', 'b', 'c', 'a']);
    round
      .upload('a', 'b', 'c', 'd')
      .feed({ type: 'merged', round: 1, quarantined: [] })
      .elapse(1_000)
      .wish('a', 'b', 'c');
    expect(round.state.leases.map((lease) => lease.task)).toEqual(['b', 'c', 'a']);
  });
});

describe('training', () => {
  const training = (policy: Partial<Policy> = {}) =>
    new Round(policy).feed({ type: 'start' }).wish('a', 'b', 'c', 'd').elapse(5_000);

  it('merges at the goal and revokes those still training', () => {
    const round = new Round().feed({ type: 'start' }).wish('a', 'b', 'c', 'd', 'e', 'f').upload('a', 'b', 'c', 'd');
    expect(round.state.phase).toBe('merging');
    expect(round.effects.filter((effect) => effect.type === 'revoked').map((effect) => effect.clientId)).toEqual([
      'e',
      'f',
    ]);
    expect(round.effects.at(-1)).toEqual({ type: 'merge', round: 1 });
  });

  it('merges the minimum when the last live lease is lost', () => {
    expect(training().upload('a', 'b', 'c').lose('d').state.phase).toBe('merging');
  });

  it('merges the minimum at the deadline', () => {
    const round = training().upload('a', 'b', 'c').elapse(99_999);
    expect(round.state.phase).toBe('training');
    expect(round.elapse(1).state.phase).toBe('merging');
  });

  it('is abandoned below the minimum and goes on from the last version', () => {
    const round = training().upload('a', 'b').lose('c').lose('d');
    expect(round.state.reason).toBe(
      'Training ended with 2 uploads of the 3 needed: no volunteer is left who could deliver.',
    );
    expect(round.elapse(1_000).state).toMatchObject({ phase: 'selecting', round: 2, version: 0 });
  });

  it('offers a lost lease again while time allows', () => {
    const round = training().wish('late');
    expect(round.state.wishes).toHaveLength(1);
    round.lose('a');
    expect(round.granted().at(-1)).toBe('late');
    const late = training().wish('late').elapse(80_000).lose('a');
    expect(late.granted()).not.toContain('late');
  });

  it('never offers a second lease to one who has delivered', () => {
    const round = training().upload('a').wish('a').lose('b');
    expect(round.state.leases.filter((lease) => lease.clientId === 'a')).toHaveLength(1);
  });

  it('replaces the lease of one who asks again', () => {
    const round = training().wish('a');
    expect(round.state.leases.filter((lease) => lease.clientId === 'a').map((lease) => lease.state)).toEqual([
      'dropped',
      'live',
    ]);
  });
});

describe('merging', () => {
  const merging = (policy: Partial<Policy> = {}) =>
    new Round(policy).feed({ type: 'start' }).wish('a', 'b', 'c', 'd').elapse(5_000).upload('a', 'b', 'c', 'd');

  it('commits, rests and opens the next round; the run completes after its rounds', () => {
    const round = merging({ rounds: 2 }).feed({ type: 'merged', round: 1, quarantined: [] });
    expect(round.state).toMatchObject({ phase: 'committed', version: 1, run: 'running' });
    round
      .elapse(1_000)
      .wish('a', 'b', 'c')
      .elapse(60_000)
      .upload('a', 'b', 'c')
      .feed({ type: 'merged', round: 2, quarantined: [] });
    expect(round.state).toMatchObject({ phase: 'committed', version: 2, run: 'completed' });
    expect(round.elapse(10 ** 6).state.round).toBe(2);
  });

  it('ignores the answer to an older merge, or one that comes after the deadline', () => {
    expect(merging().feed({ type: 'merged', round: 7, quarantined: [] }).state.phase).toBe('merging');
    const late = merging().elapse(30_000).feed({ type: 'merged', round: 1, quarantined: [] });
    expect(late.state).toMatchObject({
      phase: 'abandoned',
      version: 0,
      reason: 'Merging took longer than its deadline.',
    });
  });

  it('counts quarantined uploads apart', () => {
    const round = merging();
    round.feed({ type: 'merged', round: 1, quarantined: [{ leaseId: round.lease('b'), reason: 'norm' }] });
    expect(countLeases(round.state.leases)).toEqual({
      leased: 4,
      training: 0,
      uploaded: 3,
      quarantined: 1,
      dropped: 0,
    });
  });

  it('merges again after a restart', () => {
    const { effects } = step(merging().state, { type: 'resumed' });
    expect(effects).toEqual([{ type: 'merge', round: 1 }]);
  });
});

describe('the operator', () => {
  it('pauses: a selecting round ends, a training one goes on, none opens until start', () => {
    const selecting = new Round().feed({ type: 'start' }).wish('a').feed({ type: 'pause' });
    expect(selecting.state).toMatchObject({ run: 'paused', phase: 'abandoned', reason: 'The run was paused.' });
    expect(selecting.elapse(10 ** 6).state.round).toBe(1);
    expect(selecting.feed({ type: 'start' }).state).toMatchObject({ run: 'running', phase: 'selecting', round: 2 });
    const training = new Round().feed({ type: 'start' }).wish('a', 'b', 'c', 'd').elapse(5_000).feed({ type: 'pause' });
    training
      .upload('a', 'b', 'c', 'd')
      .feed({ type: 'merged', round: 1, quarantined: [] })
      .elapse(10 ** 6);
    expect(training.state).toMatchObject({ run: 'paused', phase: 'committed', version: 1 });
  });

  it('closes a round early with the minimum', () => {
    const round = new Round().feed({ type: 'start' }).wish('a', 'b', 'c').feed({ type: 'close-round' });
    expect(round.state.phase).toBe('training');
    expect(round.upload('a', 'b').feed({ type: 'close-round' }).state.reason).toBe(
      'Training ended with 2 uploads of the 3 needed: the operator closed the round.',
    );
  });

  it('stops a run for good', () => {
    const round = new Round().feed({ type: 'start' }).wish('a', 'b', 'c', 'd').elapse(5_000).feed({ type: 'stop' });
    expect(round.state).toMatchObject({ run: 'stopped', phase: 'abandoned' });
    expect(round.feed({ type: 'start' }).elapse(10 ** 6).state.round).toBe(1);
  });
});

describe('deterministic mode', () => {
  it('takes the same cohort and tasks whoever comes first, exactly the goal', () => {
    const people = ['p', 'q', 'r', 's', 't', 'u'];
    const cohort = (order: string[]) => {
      const round = new Round({ deterministic: true })
        .feed({ type: 'start' }, { type: 'present', count: 6 })
        .wish(...order);
      return round.state.leases.map((lease) => [lease.clientId, lease.task]);
    };
    expect(cohort(people)).toHaveLength(4);
    expect(cohort([...people].reverse())).toEqual(cohort(people));
  });

  it('merges when all have reported or dropped, without offering again', () => {
    const round = new Round({ deterministic: true }).feed({ type: 'start' }).wish('a', 'b', 'c', 'd').wish('e');
    expect(round.state.phase).toBe('training');
    expect(round.upload('a', 'b', 'c').state.phase).toBe('training');
    expect(round.lose('d').state.phase).toBe('merging');
  });
});

const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
type Move =
  | { kind: 'event'; event: MachineEvent }
  | { kind: 'wish'; who: string; own: boolean; id: number }
  | { kind: 'on-lease'; what: 'lost' | 'uploaded'; which: number }
  | { kind: 'answer'; ok: boolean; bad: number };

const move: fc.Arbitrary<Move> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('wish' as const),
      who: fc.constantFrom(...names),
      own: fc.boolean(),
      id: fc.nat(),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('on-lease' as const),
      what: fc.constantFrom('lost' as const, 'uploaded' as const),
      which: fc.nat(20),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('answer' as const), ok: fc.boolean(), bad: fc.nat(2) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('event' as const),
      event: fc.oneof(
        fc.nat(40_000).map<MachineEvent>((ms) => ({ type: 'elapsed', ms })),
        fc.constantFrom(...names).map<MachineEvent>((clientId) => ({ type: 'withdraw', clientId })),
        fc.nat(8).map<MachineEvent>((count) => ({ type: 'present', count })),
        fc.constantFrom<MachineEvent>(
          { type: 'start' },
          { type: 'pause' },
          { type: 'close-round' },
          { type: 'resumed' },
        ),
      ),
    }),
  },
);

const NEXT: Record<string, string[]> = {
  idle: ['selecting'],
  selecting: ['training', 'abandoned'],
  training: ['merging', 'abandoned'],
  merging: ['committed', 'abandoned'],
  committed: ['selecting'],
  abandoned: ['selecting'],
};

describe('any schedule of events', () => {
  const policies = fc.record({
    deterministic: fc.boolean(),
    goal: fc.integer({ min: 3, max: 6 }),
    rounds: fc.integer({ min: 1, max: 4 }),
  });

  it('keeps counts that add up, legal phases, one live lease a client; and never gets stuck', () => {
    fc.assert(
      fc.property(policies, fc.array(move, { maxLength: 120, size: 'max' }), (policy, moves) => {
        const round = new Round({ ...policy, ownFileMinimum: Math.min(5, policy.goal) }).feed({ type: 'start' });
        let serial = 0;
        let phase = 'idle';
        let seen = 0;
        const check = () => {
          for (const effect of round.effects.slice(seen)) {
            if (effect.type === 'phase') {
              expect(NEXT[phase]).toContain(effect.phase);
              phase = effect.phase;
            }
          }
          seen = round.effects.length;
          const { state } = round;
          expect(phase).toBe(state.phase);
          const counts = countLeases(state.leases);
          expect(counts.training + counts.uploaded + counts.quarantined + counts.dropped).toBe(counts.leased);
          expect(counts.training + counts.uploaded + counts.quarantined).toBeLessThanOrEqual(
            selectionLimit(state.policy),
          );
          const live = state.leases.filter((lease) => lease.state !== 'dropped').map((lease) => lease.clientId);
          expect(new Set(live).size).toBe(live.length);
          if (state.phase !== 'selecting' && state.phase !== 'training') expect(counts.training).toBe(0);
          if (state.phase === 'merging')
            expect(counts.uploaded).toBeGreaterThanOrEqual(minimumFor(state.policy, state.leases));
          expect(state.version).toBeLessThanOrEqual(state.policy.rounds);
          const waiting = state.wishes.map((wish) => wish.clientId);
          expect(new Set(waiting).size).toBe(waiting.length);
        };
        for (const next of moves) {
          const { state } = round;
          if (next.kind === 'event') round.feed(next.event);
          else if (next.kind === 'wish') {
            const wish = {
              leaseId: `l${serial++}`,
              clientId: next.who,
              key: next.who,
              rank: 1,
              task: null,
              own: next.own,
            };
            round.feed({ type: 'wish', wish });
          } else if (next.kind === 'on-lease') {
            const lease = state.leases[next.which % Math.max(1, state.leases.length)];
            if (lease) round.feed({ type: next.what, leaseId: lease.leaseId, reason: 'lost' } as MachineEvent);
          } else if (state.phase === 'merging') {
            const quarantined = state.leases
              .filter((lease) => lease.state === 'uploaded')
              .slice(0, next.bad)
              .map((lease) => ({ leaseId: lease.leaseId, reason: 'norm' }));
            round.feed(
              next.ok
                ? { type: 'merged', round: state.round, quarantined }
                : { type: 'merge-failed', round: state.round, reason: 'too few', quarantined },
            );
          }
          check();
        }
        // Whatever happened: with volunteers who deliver and merges that answer, the run comes to its end.
        round.feed({ type: 'start' }, { type: 'present', count: names.length });
        for (let i = 0; i < 400 && round.state.run !== 'completed'; i++) {
          if (round.state.phase === 'merging')
            round.feed({ type: 'merged', round: round.state.round, quarantined: [] });
          for (const who of names) {
            const held = round.state.leases.find((lease) => lease.clientId === who && lease.state !== 'dropped');
            if (!held && !round.state.wishes.some((wish) => wish.clientId === who)) {
              round.feed({
                type: 'wish',
                wish: { leaseId: `l${serial++}`, clientId: who, key: who, rank: 1, task: null, own: false },
              });
            }
          }
          for (const lease of round.state.leases) {
            if (lease.state === 'live') round.feed({ type: 'uploaded', leaseId: lease.leaseId });
          }
          round.elapse(1_000);
          check();
        }
        expect(round.state.run).toBe('completed');
      }),
      { numRuns: 400 },
    );
  });
});
