// Plays one schedule through the round machine and keeps a ledger of its own of what it did; after every event the machine's state
// must agree with it. At the end time alone must end the round, and willing volunteers the run.
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
  parseMachineEvent,
  step,
} from '@weft/server/coordinator';
import { CLIENTS, type Move, type Schedule } from './draw.ts';

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
  /** Uploads taken back by their volunteers, and of these the late ones. */
  withdrawn: number;
  lateWithdrawn: number;
  forgotten: number;
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
    withdrawn: 0,
    lateWithdrawn: 0,
    forgotten: 0,
    restarts: 0,
  };
  /** What forgotten volunteers are called from then on. */
  readonly pseudonyms = new Set<string>();
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
      case 'take-back': {
        const all = this.#delivered();
        const lease = all[next.which % Math.max(1, all.length)];
        if (lease) this.takeBack(lease.leaseId);
        break;
      }
      case 'forget':
        this.forget(next.who);
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
    // Nobody has the key of a volunteer who was forgotten.
    if (this.pseudonyms.has(lease?.clientId ?? state.late.find((entry) => entry.leaseId === leaseId)?.clientId ?? ''))
      return;
    if ((lease?.state === 'live' && open) || awaited) this.acknowledged.set(leaseId, 'open');
    this.feed({ type: 'uploaded', leaseId });
    if (!awaited) return;
    this.reached.late += 1;
    if (this.state.leases.some((entry) => entry.leaseId === leaseId && entry.state === 'uploaded'))
      this.reached.revived += 1;
  }

  /** Acknowledged uploads that are in no merge yet: a server lets nobody take back what is in one. */
  #delivered(): readonly LeaseEntry[] {
    const { leases, late, merge, phase } = this.state;
    const isOpen = ({ leaseId }: LeaseEntry) => this.acknowledged.get(leaseId) === 'open';
    return [
      ...(phase === 'merging' ? [] : leases.filter(({ state }) => state === 'uploaded')),
      ...(phase === 'merging' || merge ? [] : late.filter(({ arrived }) => arrived)),
    ].filter(isOpen);
  }

  takeBack(leaseId: string): void {
    this.reached.withdrawn += 1;
    if (this.state.late.some((entry) => entry.leaseId === leaseId)) this.reached.lateWithdrawn += 1;
    this.acknowledged.set(leaseId, 'settled');
    this.feed({ type: 'withdrawn', leaseId, reason: 'taken back' });
    check(
      this.state.late.every((entry) => entry.leaseId !== leaseId),
      () => `${leaseId} was taken back and is still late work`,
    );
  }

  /** What a server does for it, as events: the volunteer leaves, its uploads are taken back, its leases get another name. */
  forget(who: string): void {
    const { leases, late, merge, phase } = this.state;
    const isTheirs = ({ clientId }: LeaseEntry) => clientId === who;
    const inMerge = [
      ...(merge?.leases ?? []),
      ...(phase === 'merging' ? leases : []),
      ...(phase === 'merging' || merge ? late.filter(({ arrived }) => arrived) : []),
    ].some((lease) => isTheirs(lease) && lease.state === 'uploaded');
    if (inMerge) return;
    this.feed({ type: 'withdraw', clientId: who });
    for (const { leaseId, state } of this.state.leases.filter(isTheirs))
      if (state === 'live') this.feed({ type: 'lost', leaseId, reason: 'left' });
    for (const { leaseId } of this.#delivered().filter(isTheirs)) this.takeBack(leaseId);
    const pseudonym = `forgotten-${this.#serial++}`;
    this.pseudonyms.add(pseudonym);
    this.reached.forgotten += 1;
    this.feed({ type: 'forgotten', clientId: who, pseudonym });
    const { wishes } = this.state;
    check(
      [...this.state.leases, ...this.state.late, ...(this.state.merge?.leases ?? []), ...wishes].every(
        ({ clientId, key }) => clientId !== who && key !== who,
      ),
      () => `${who} was forgotten and is still named`,
    );
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
