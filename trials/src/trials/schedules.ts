// Random schedules of events through the round machine: both modes, late work, the operator's commands, restarts. What a schedule
// did is kept in a ledger of its own, and after every event the machine's state must agree with it; at its end time alone must
// end the round, and willing volunteers the run.
import { isDeepStrictEqual } from 'node:util';
import {
  countLeases,
  type Effect,
  initialState,
  type LateEntry,
  type LeaseEntry,
  type MachineEvent,
  type MachineState,
  machineStateSchema,
  minimumOfUploads,
  type Policy,
  parseMachineEvent,
  step,
} from '@weft/server/coordinator';
import fc from 'fast-check';
import type { Trial } from '../figure.ts';

const CLIENTS = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'];
const RANKS = [1, 2, 4];
/** Schedules drawn at a time, so that ten thousand do not lie in memory at once. */
const BATCH = 250;

/** One thing that happens; what it happens to is chosen among what there is then. */
export type Move =
  | { readonly kind: 'event'; readonly event: MachineEvent }
  | { readonly kind: 'wish'; readonly who: string; readonly own: boolean; readonly rank: number }
  | { readonly kind: 'lost'; readonly which: number; readonly late: boolean }
  | { readonly kind: 'upload'; readonly which: number }
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

export const schedule: fc.Arbitrary<Schedule> = fc.record({ policy, moves: fc.array(move, { maxLength: 140 }) });

/** What is wrong, and of which kind. */
export class Wrong extends Error {
  override readonly name = 'Wrong';
  readonly kind: 'count' | 'stuck';

  constructor(kind: 'count' | 'stuck', message: string) {
    super(message);
    this.kind = kind;
  }
}

const check = (holds: boolean, message: () => string): void => {
  if (!holds) throw new Wrong('count', message());
};

const equal = isDeepStrictEqual;

/** Counted one by one, by nothing of the machine's. */
function recount(leases: readonly LeaseEntry[]) {
  const of = (wanted: LeaseEntry['state']) => leases.filter(({ state }) => state === wanted).length;
  return {
    leased: leases.length,
    training: of('live'),
    uploaded: of('uploaded'),
    quarantined: of('quarantined'),
    dropped: of('dropped'),
  };
}

/** How often schedules came to what they are drawn for; a trial that never got there has shown nothing. */
export type Reached = {
  commits: number;
  /** Merged while others trained. */
  commitsBeside: number;
  abandoned: number;
  /** Late uploads taken, and of these the ones whose round was still open. */
  late: number;
  revived: number;
  lateMerged: number;
  credited: number;
  stale: number;
  restarts: number;
};

/** Plays one schedule and holds the machine to its ledger. */
class Player {
  state: MachineState;
  readonly events: MachineEvent[] = [];
  /** Acknowledged uploads: still to be settled, or by what they were. */
  readonly acknowledged = new Map<string, 'open' | 'settled'>();
  readonly granted = new Set<string>();
  /** Leases told to their volunteers as over. */
  readonly over = new Set<string>();
  readonly reached: Reached = {
    commits: 0,
    commitsBeside: 0,
    abandoned: 0,
    late: 0,
    revived: 0,
    lateMerged: 0,
    credited: 0,
    stale: 0,
    restarts: 0,
  };
  readonly #first: MachineState;
  #serial = 0;

  constructor({ policy: rules }: Schedule) {
    this.state = initialState(rules);
    this.#first = this.state;
  }

  play(next: Move): void {
    const { state } = this;
    switch (next.kind) {
      case 'event':
        this.feed(next.event);
        break;
      case 'wish':
        this.wish(next.who, next.rank, next.own);
        break;
      case 'lost': {
        const lease = state.leases[next.which % Math.max(1, state.leases.length)];
        if (lease) this.feed({ type: 'lost', leaseId: lease.leaseId, reason: 'gone', late: next.late });
        break;
      }
      case 'upload': {
        // Also of leases that are over: those must change nothing.
        const all = [...state.leases, ...state.late];
        const lease = all[next.which % Math.max(1, all.length)];
        if (lease) this.upload(lease.leaseId);
        break;
      }
      case 'answer':
        this.answer(next.ok, next.bad, next.background);
        break;
      case 'restart':
        this.restart();
        break;
    }
  }

  wish(who: string, rank: number, own: boolean): void {
    const leaseId = `l${this.#serial++}`;
    this.feed({ type: 'wish', wish: { leaseId, clientId: who, key: who, rank, task: null, own } });
  }

  upload(leaseId: string): void {
    const { state } = this;
    const lease = state.leases.find((entry) => entry.leaseId === leaseId);
    const open = state.phase === 'selecting' || state.phase === 'training';
    const awaited = state.late.some((entry) => entry.leaseId === leaseId && !entry.arrived);
    if ((lease?.state === 'live' && open) || awaited) this.acknowledged.set(leaseId, 'open');
    this.feed({ type: 'uploaded', leaseId });
    if (!awaited) return;
    this.reached.late += 1;
    if (this.state.leases.some((entry) => entry.leaseId === leaseId && entry.state === 'uploaded'))
      this.reached.revived += 1;
  }

  answer(ok: boolean, bad: number, background: boolean): void {
    const { merge, phase, round } = this.state;
    const of = merge && (background || phase !== 'merging') ? merge.round : phase === 'merging' ? round : null;
    if (of === null) return;
    const leases = merge?.round === of ? merge.leases : this.state.leases;
    const uploads = leases.filter(({ state }) => state === 'uploaded');
    const quarantined = uploads.slice(0, bad).map(({ leaseId }) => ({ leaseId, reason: 'norm' }));
    const late = this.state.late.flatMap(({ arrived, leaseId }) => (arrived ? leaseId : []));
    if (ok) {
      for (const { leaseId, state } of leases) if (state !== 'dropped') this.#settle(leaseId);
      for (const leaseId of late) this.#settle(leaseId);
      this.reached.lateMerged += late.length;
      this.reached[merge?.round === of ? 'commitsBeside' : 'commits'] += 1;
      this.feed({ type: 'merged', round: of, quarantined, late });
    } else {
      for (const { leaseId } of quarantined) this.#settle(leaseId);
      for (const { leaseId, state } of leases) if (state === 'quarantined') this.#settle(leaseId);
      this.feed({ type: 'merge-failed', round: of, reason: 'too few', quarantined, late });
    }
  }

  #settle(leaseId: string): void {
    const before = this.acknowledged.get(leaseId);
    check(before !== undefined, () => `${leaseId} is in a merge without having been acknowledged`);
    check(before !== 'settled', () => `${leaseId} is settled twice`);
    this.acknowledged.set(leaseId, 'settled');
  }

  /** The server is killed and started again: the state comes back from its text, and nobody is connected. */
  restart(): void {
    this.reached.restarts += 1;
    const read = machineStateSchema.parse(JSON.parse(JSON.stringify(this.state)));
    check(equal(read, this.state), () => 'the state does not survive being written and read');
    // What a server does then, as events: nobody is here, nobody waits.
    for (const { clientId } of read.wishes) this.feed({ type: 'withdraw', clientId });
    this.feed({ type: 'present', count: 0 });
    this.state = machineStateSchema.parse(JSON.parse(JSON.stringify(this.state)));
    const merging = (this.state.merge ? 1 : 0) + (this.state.phase === 'merging' ? 1 : 0);
    const effects = this.feed({ type: 'resumed' });
    const asked = effects.filter(({ type }) => type === 'merge').length;
    check(asked === merging, () => `${asked} merges were asked for again, ${merging} were going on`);
  }

  feed(event: MachineEvent): readonly Effect[] {
    check(equal(parseMachineEvent(JSON.parse(JSON.stringify(event))), event), () => 'an event is not plain JSON');
    const before = this.state;
    this.events.push(event);
    const { state, effects } = step(before, event);
    this.state = state;
    this.#checkEffects(before, event, effects);
    this.#checkState(before, event, effects);
    return effects;
  }

  /** Whatever changed was told. */
  #checkEffects(before: MachineState, event: MachineEvent, effects: readonly Effect[]): void {
    const { state } = this;
    const names = (type: Effect['type']) => effects.filter((effect) => effect.type === type);
    const known = new Set(before.leases.map(({ leaseId }) => leaseId));
    for (const effect of effects) {
      if (effect.type === 'granted') {
        check(!this.granted.has(effect.lease.leaseId), () => `${effect.lease.leaseId} is granted twice`);
        this.granted.add(effect.lease.leaseId);
      }
      if (effect.type === 'revoked') this.over.add(effect.leaseId);
      if (effect.type === 'credit') {
        this.reached.credited += effect.late.length;
        for (const { leaseId } of effect.late) this.#settle(leaseId);
      }
      if (effect.type === 'abandoned') this.reached.abandoned += 1;
      if (effect.type === 'revoked' && effect.reason.startsWith('It started from version')) this.reached.stale += 1;
    }
    for (const { leaseId } of state.leases)
      check(known.has(leaseId) || this.granted.has(leaseId), () => `${leaseId} has a place nobody was told of`);
    const dropped = [...state.leases, ...(state.merge?.leases ?? [])].filter(
      (lease) =>
        lease.state === 'dropped' && before.leases.some((was) => was.leaseId === lease.leaseId && was.state === 'live'),
    );
    for (const { leaseId, clientId } of dropped) {
      const own =
        (event.type === 'lost' && event.leaseId === leaseId) ||
        (event.type === 'wish' && event.wish.clientId === clientId);
      check(own || this.over.has(leaseId), () => `${leaseId} was dropped and its volunteer not told`);
    }
    const began = state.phase === 'merging' && before.phase !== 'merging' ? 1 : 0;
    const beside = state.merge && state.merge.round !== before.merge?.round ? 1 : 0;
    if (event.type !== 'resumed')
      check(names('merge').length === began + beside, () => 'a merge was not asked for, or asked for twice');
    if (state.phase !== before.phase || state.round !== before.round)
      check(names('phase').length > 0, () => `round ${state.round} is ${state.phase} and nobody was told`);
    if (state.phase === 'abandoned' && (before.phase !== 'abandoned' || before.round !== state.round))
      check(names('abandoned').length > 0, () => `round ${state.round} was abandoned and nobody was told`);
    const ended = (run: MachineState['run']) => run === 'completed' || run === 'stopped';
    if (ended(state.run) !== ended(before.run))
      check(names('run-ended').length === 1, () => 'the run ended and nobody was told');
  }

  #checkState(before: MachineState, event: MachineEvent, effects: readonly Effect[]): void {
    const { state } = this;
    const { policy: rules, leases, late, merge } = state;
    check(equal(countLeases(leases), recount(leases)), () => 'counts differ from the leases');
    const counts = recount(leases);
    check(
      counts.training + counts.uploaded + counts.quarantined + counts.dropped === counts.leased,
      () => 'counts do not add up',
    );
    const ids = [...leases, ...(merge?.leases ?? [])].map(({ leaseId }) => leaseId);
    check(new Set(ids).size === ids.length, () => 'a lease is in two rounds');
    check(new Set(late.map(({ leaseId }) => leaseId)).size === late.length, () => 'late work is listed twice');
    const kept = leases.filter(({ state: each }) => each !== 'dropped').map(({ clientId }) => clientId);
    check(new Set(kept).size === kept.length, () => 'a client counts twice in one round');
    const waiting = state.wishes.map(({ clientId }) => clientId);
    check(new Set(waiting).size === waiting.length, () => 'a client waits twice');
    if (rules.mode === 'buffered')
      check(counts.training <= rules.concurrency, () => `${counts.training} train at once of ${rules.concurrency}`);
    else if (state.phase !== 'selecting' && state.phase !== 'training')
      check(counts.training === 0, () => `${counts.training} still train in a round that is ${state.phase}`);
    check(state.version <= rules.rounds, () => 'more versions than rounds');
    for (const effect of effects) {
      if (effect.type !== 'merge') continue;
      const of = merge?.round === effect.round ? merge.leases : leases;
      const uploads = of.filter(({ state: each }) => each === 'uploaded');
      const clients = new Set(uploads.map(({ clientId }) => clientId)).size;
      check(clients >= minimumOfUploads(rules, of), () => `a merge of ${clients} uploads is below its minimum`);
      for (const { leaseId } of uploads)
        check(this.acknowledged.get(leaseId) === 'open', () => `${leaseId} is merged, but was not delivered or twice`);
    }
    this.#checkAcknowledged(before, event, effects);
  }

  /** Nothing acknowledged is lost: it waits for a merge, or what happened has settled it. */
  #checkAcknowledged(before: MachineState, event: MachineEvent, effects: readonly Effect[]): void {
    const { state } = this;
    const isHere = (lease: LeaseEntry) => lease.state === 'uploaded' || lease.state === 'quarantined';
    const here = new Set([
      ...[...state.leases, ...(state.merge?.leases ?? [])].filter(isHere).map(({ leaseId }) => leaseId),
      ...state.late.flatMap(({ arrived, leaseId }: LateEntry) => (arrived ? leaseId : [])),
    ]);
    const gaveUp = effects.some(({ type }) => type === 'abandoned');
    const keepsNone = state.policy.lateMs === 0 || event.type === 'abort-round';
    for (const [leaseId, fate] of this.acknowledged) {
      if (fate === 'settled' || here.has(leaseId)) continue;
      const was = [...before.leases, ...(before.merge?.leases ?? [])].find((lease) => lease.leaseId === leaseId);
      // Given up with its round: by the operator, by a run without late work, or quarantined in it.
      const isGone = was?.state === 'quarantined' || keepsNone || before.phase === 'abandoned';
      check((gaveUp || before.phase === 'abandoned') && isGone, () => `${leaseId} was acknowledged and is lost`);
      this.acknowledged.set(leaseId, 'settled');
    }
  }

  /** Time alone ends the round in progress: all leases run out, no merge answers. */
  waitItOut(): void {
    const { round, phase, merge } = this.state;
    if (phase === 'idle' || this.state.run === 'stopped' || this.state.run === 'completed') return;
    const ended = () => (this.state.round > round || !isBusy(this.state)) && this.state.merge?.round !== merge?.round;
    const idle = () => this.state.leases.length === 0 && this.state.wishes.length === 0 && this.state.merge === null;
    const settledAll = merge === null ? () => this.state.round > round || !isBusy(this.state) : ended;
    for (let i = 0; i < 400 && !settledAll() && !idle(); i++) {
      for (const { leaseId, state } of this.state.leases)
        if (state === 'live') this.feed({ type: 'lost', leaseId, reason: 'expired', late: true });
      this.feed({ type: 'elapsed', ms: 10_000 });
    }
    if (!settledAll() && !idle())
      throw new Wrong('stuck', `round ${round} is still ${this.state.phase} after more than an hour`);
  }

  /** Willing volunteers and answered merges bring the run to its end. */
  finish(): void {
    if (this.state.run === 'stopped') return;
    this.feed({ type: 'start' });
    this.feed({ type: 'present', count: CLIENTS.length });
    for (let i = 0; i < 600 && this.state.run !== 'completed'; i++) {
      this.answer(true, 0, true);
      this.answer(true, 0, false);
      for (const who of CLIENTS) {
        const { leases, wishes } = this.state;
        const held = leases.some((lease) => lease.clientId === who && lease.state !== 'dropped');
        if (!held && !wishes.some(({ clientId }) => clientId === who)) this.wish(who, 1, false);
      }
      for (const { leaseId, state } of this.state.leases) if (state === 'live') this.upload(leaseId);
      this.feed({ type: 'elapsed', ms: 2_000 });
    }
    if (this.state.run !== 'completed')
      throw new Wrong('stuck', `the run is ${this.state.run} in round ${this.state.round}, ${this.state.phase}`);
  }

  /** The same events give the same state. */
  replay(): void {
    const again = this.events.reduce((state, event) => step(state, event).state, this.#first);
    check(equal(again, this.state), () => 'the same events gave another state');
  }
}

const isBusy = ({ phase }: MachineState): boolean =>
  phase === 'selecting' || phase === 'training' || phase === 'merging';

/** Plays a schedule to its end. Throws {@link Wrong}. */
export function play(drawn: Schedule): { readonly events: number; readonly reached: Reached } {
  const player = new Player(drawn);
  player.feed({ type: 'start' });
  for (const next of drawn.moves) player.play(next);
  player.waitItOut();
  player.finish();
  player.replay();
  return { events: player.events.length, reached: player.reached };
}

export interface ScheduleOptions {
  readonly schedules: number;
  readonly seed: number;
}

export const schedules: Trial<ScheduleOptions> = async ({ schedules: wanted, seed }, say) => {
  const found = { count: 0, stuck: 0 };
  const reached: Record<string, number> = {};
  let events = 0;
  const startedAt = performance.now();
  for (let done = 0; done < wanted; done += BATCH) {
    const drawn = fc.sample(schedule, { numRuns: Math.min(BATCH, wanted - done), seed: seed + done });
    for (const [i, each] of drawn.entries()) {
      try {
        const played = play(each);
        events += played.events;
        for (const [what, times] of Object.entries(played.reached)) reached[what] = (reached[what] ?? 0) + times;
      } catch (error) {
        if (!(error instanceof Wrong)) throw error;
        found[error.kind] += 1;
        say(`schedule ${done + i}: ${error.message}`);
        if (found.count + found.stuck <= 3) say(JSON.stringify(each));
      }
    }
    if ((done / BATCH) % 8 === 7) say(`${done + drawn.length} of ${wanted} schedules`);
  }
  const seconds = (performance.now() - startedAt) / 1000;
  return {
    trial: 'schedules',
    command: `npm run chaos -- schedules --schedules ${wanted} --seed ${seed}`,
    figures: [
      { name: 'schedules played', measured: `${wanted}`, toReach: 'as many as were asked for', ok: wanted > 0 },
      { name: 'stuck rounds', measured: `${found.stuck}`, toReach: '0', ok: found.stuck === 0 },
      { name: 'wrong counts', measured: `${found.count}`, toReach: '0', ok: found.count === 0 },
    ],
    detail: { seed, events, reached, seconds: Math.round(seconds * 10) / 10 },
  };
};
