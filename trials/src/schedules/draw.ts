// What random schedules are made of: the rules of a run and what happens to it. Drawn by fast-check, so that what goes wrong is
// shrunk; played by player.ts.
import { type MachineEvent, type Policy, parseMachineEvent } from '@weft/server/coordinator';
import fc from 'fast-check';

export const CLIENTS = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'];
const RANKS = [1, 2, 4];

/** One thing that happens; what it happens to is chosen among what there is then. */
export type Move =
  | { readonly kind: 'event'; readonly event: MachineEvent }
  | { readonly kind: 'wish'; readonly who: string; readonly own: boolean; readonly rank: number }
  | { readonly kind: 'lost'; readonly which: number; readonly late: boolean }
  | { readonly kind: 'upload'; readonly which: number }
  | { readonly kind: 'take-back'; readonly which: number }
  | { readonly kind: 'forget'; readonly who: string }
  | { readonly kind: 'answer'; readonly ok: boolean; readonly bad: number; readonly background: boolean }
  | { readonly kind: 'restart' };

export interface Schedule {
  readonly policy: Policy;
  readonly moves: readonly Move[];
}

const said = fc.constantFrom(null, 'because');
const move: fc.Arbitrary<Move> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('wish' as const),
      who: fc.constantFrom(...CLIENTS),
      own: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
      rank: fc.constantFrom(...RANKS),
    }),
  },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('upload' as const), which: fc.nat(30) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('lost' as const), which: fc.nat(30), late: fc.boolean() }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('answer' as const),
      ok: fc.integer({ min: 0, max: 3 }).map((n) => n > 0),
      bad: fc.constantFrom(0, 0, 0, 1, 2),
      background: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('take-back' as const), which: fc.nat(30) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('forget' as const), who: fc.constantFrom(...CLIENTS) }) },
  { weight: 1, arbitrary: fc.constant<Move>({ kind: 'restart' }) },
  {
    weight: 5,
    arbitrary: fc
      .oneof(
        { weight: 120, arbitrary: fc.nat(30_000).map<MachineEvent>((ms) => ({ type: 'elapsed', ms })) },
        {
          weight: 20,
          arbitrary: fc.constantFrom(...CLIENTS).map<MachineEvent>((clientId) => ({ type: 'withdraw', clientId })),
        },
        { weight: 20, arbitrary: fc.nat(CLIENTS.length).map<MachineEvent>((count) => ({ type: 'present', count })) },
        {
          weight: 20,
          arbitrary: fc
            .tuple(fc.integer({ min: 1_000, max: 60_000 }), said)
            .map(([ms, reason]): MachineEvent => ({ type: 'extend', ms, reason })),
        },
        {
          weight: 40,
          arbitrary: fc
            .tuple(fc.constantFrom('start', 'start', 'pause', 'close-round', 'abort-round'), said)
            .map(([type, reason]): MachineEvent => parseMachineEvent({ type, reason })),
        },
        { weight: 1, arbitrary: said.map<MachineEvent>((reason) => ({ type: 'stop', reason })) },
      )
      .map<Move>((event) => ({ kind: 'event', event })),
  },
);

const policy: fc.Arbitrary<Policy> = fc
  .record({
    mode: fc.constantFrom('synchronous' as const, 'buffered' as const),
    goal: fc.integer({ min: 3, max: 6 }),
    deterministic: fc.integer({ min: 0, max: 4 }).map((n) => n === 0),
    stratify: fc.boolean(),
    concurrency: fc.integer({ min: 1, max: 8 }),
    maxStaleness: fc.integer({ min: 0, max: 3 }),
    rounds: fc.integer({ min: 1, max: 5 }),
    lateMs: fc.constantFrom(0, 15_000, 60_000),
    ownFileMinimum: fc.constantFrom(3, 5),
  })
  .map((drawn): Policy => {
    const deterministic = drawn.deterministic && drawn.mode === 'synchronous';
    return {
      ...drawn,
      deterministic,
      stratify: drawn.stratify && !deterministic,
      lateMs: deterministic ? 0 : drawn.lateMs,
      minimum: 3,
      seed: 'weft',
      tasks: ['rooms', 'containers', 'travel'],
      ranks: RANKS,
      selectionMs: 60_000,
      graceMs: 5_000,
      trainingMs: 100_000,
      mergingMs: 30_000,
      restMs: 1_000,
    };
  });

/** All lengths alike: fast-check by itself draws lists of a few moves, which come to nothing. */
export const schedule: fc.Arbitrary<Schedule> = fc.record({
  policy,
  moves: fc.array(move, { maxLength: 140, size: 'max' }),
});
