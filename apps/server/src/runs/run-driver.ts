// Drives one run: feeds the round machine with events and time, writes them down before anybody hears of them, and
// carries out its effects. What volunteers ask for is participation.ts; transport, timers, merging and files are passed in.
import { setTimeout as pause } from 'node:timers/promises';
import type { AlertKind, Lease, LogLine, RoundRecord, RoundView, RunView } from '@weft/protocol';
import { lateEntryOf, leaseOf, leasesOfMerge, liveLeaseOf } from '../coordinator/derive.ts';
import { initialState, step } from '../coordinator/machine.ts';
import type {
  Effect,
  LateEntry,
  LeaseEntry,
  MachineEvent,
  MachineState,
  Quarantine,
  Wish,
} from '../coordinator/types.ts';
import { messageOf } from '../errors.ts';
import { checkUploads } from '../store/check.ts';
import { isDiskFull } from '../store/files.ts';
import type { MachineJournal } from '../store/machine-journal.ts';
import type { RoundFile } from '../store/run-store.ts';
import { abandonedAlert } from './alerts.ts';
import { Archive } from './archive.ts';
import { Background } from './background.ts';
import { Clients } from './clients.ts';
import { Evaluations } from './evaluation.ts';
import { Journal } from './journal.ts';
import { creditedLate, creditOf } from './late-work.ts';
import { LeaseClock } from './lease-clock.ts';
import { LeaseMaker } from './lease-maker.ts';
import { policyOf } from './policy.ts';
import { mergeRound } from './round-merge.ts';
import type { RunContext, RunListener } from './run-context.ts';
import { outcomeOf, roundView, runView } from './views.ts';

/** Why a lease whose upload was taken back is over. */
export const WITHDRAWN = 'Withdrawn by the volunteer.';

/** A merge that found the disk full is tried again after this time. */
const MERGE_AGAIN_MS = 1_000;

export class RunDriver {
  readonly runId: string;
  readonly leaseClock = new LeaseClock();
  readonly clients: Clients;
  readonly evaluations: Evaluations;
  readonly leases: LeaseMaker;
  readonly journal: Journal;
  readonly archive: Archive;
  readonly #context: RunContext;
  readonly #listeners = new Set<RunListener>();
  readonly #background: Background;
  #state: MachineState;
  readonly #machineJournal: MachineJournal;
  /** Events that could not be acted on because the disk is full; tried again as time passes. */
  readonly #postponed: MachineEvent[] = [];
  #shown: { readonly state: MachineState; readonly view: RoundView } | null = null;
  /** The client whose lease goes into the answer to its question, not into a notice. */
  #asking: string | null = null;
  #closed = false;
  /** Settles when the uploads a restarted server found have been read through. */
  #checked: Promise<void> = Promise.resolve();

  constructor(context: RunContext) {
    const { definition, store, timing } = context;
    this.runId = definition.runId;
    this.#context = context;
    this.journal = new Journal(store, context.logger.child({ run: this.runId }), context.now, (type, detail) =>
      context.observer.event(this.runId, type, detail),
    );
    this.#background = new Background((error) => {
      if (!this.#closed) this.journal.failure(error, 'work of a run failed');
    });
    this.clients = new Clients(context.monotonic, (clientId) => context.bans.of(clientId)?.reason ?? null);
    this.evaluations = new Evaluations(store, this.runId, definition.settings.tasks, context.monotonic);
    this.archive = new Archive(store);
    this.leases = new LeaseMaker(context, (version) => this.archive.globalOf(version));
    this.#machineJournal = store.machineJournal(context.logger.child({ run: this.runId }), context.report);
    this.#state = this.#machineJournal.load(() => initialState(policyOf(definition.settings, timing)));
  }

  /** Takes the run up where the server left it: every lease renewed, receipts and commits that the state missed added. */
  resume(): void {
    const { store } = this.#context;
    // Nobody is connected yet; those who waited ask again when they come back.
    this.#state = { ...this.#state, present: 0, wishes: [] };
    const records = awaited(this.#state).flatMap(({ round, leaseId }) => store.readUpload(round, leaseId) ?? []);
    // Bytes that were taken back are gone on purpose.
    const kept = records.filter(({ withdrawn }) => withdrawn === null);
    this.#checked = checkUploads(this.#context.uploads, kept, this.#context.report);
    for (const { receipt, withdrawn } of records) {
      const { leaseId } = receipt;
      this.dispatch(
        withdrawn === null ? { type: 'uploaded', leaseId } : { type: 'withdrawn', leaseId, reason: WITHDRAWN },
      );
    }
    const { merge, phase, round } = this.#state;
    const merging = [...(merge ? [merge.round] : []), ...(phase === 'merging' ? [round] : [])];
    for (const each of merging) {
      const ended = this.archive.of(each);
      if (ended?.global) this.#committed(ended);
    }
    for (const lease of this.#state.leases) {
      // Which tabs were hidden is not known any more, and thousands need a while to come back: the longer time for all.
      if (lease.state === 'live') this.leaseClock.start(lease.leaseId, this.#context.timing.hiddenLeaseMs);
    }
    if (this.#state.phase !== 'idle') this.dispatch({ type: 'resumed' });
  }

  listen(listener: RunListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get state(): MachineState {
    return this.#state;
  }

  hasLiveLease(leaseId: string): boolean {
    return leaseOf(this.#state, leaseId)?.state === 'live';
  }

  /** Whether an upload of this lease is still taken. */
  mayDeliver(leaseId: string): boolean {
    return this.hasLiveLease(leaseId) || lateEntryOf(this.#state, leaseId)?.arrived === false;
  }

  /** The client's live lease. */
  liveLeaseOf(clientId: string): LeaseEntry | undefined {
    return liveLeaseOf(this.#state, clientId);
  }

  view(): RunView {
    return runView(this.#context, this.#state, this.outcome());
  }

  roundView(): RoundView {
    const here = this.clients.present();
    // Thousands are told the same thing: with every heartbeat, and when they connect.
    if (this.#shown?.state !== this.#state || this.#shown.view.here !== here) {
      this.#shown = { state: this.#state, view: roundView(this.runId, this.#state, here) };
    }
    return this.#shown.view;
  }

  records(): RoundRecord[] {
    return this.archive.records((version) => this.evaluations.lossOf(version));
  }

  outcome(): string | null {
    if (this.#state.run !== 'completed' && this.#state.run !== 'stopped') return null;
    return outcomeOf(this.#state, this.records(), this.evaluations.lossOf(0));
  }

  async makeLease(entry: LeaseEntry): Promise<Lease> {
    const { version } = entry;
    try {
      const lease = await this.leases.make(entry);
      // The time to answer starts when there is something to answer.
      if (this.hasLiveLease(entry.leaseId)) this.leaseClock.start(entry.leaseId, lease.leaseMs);
      return lease;
    } catch (error) {
      this.log('error', `Start weights of version ${version} could not be made: ${messageOf(error)}`);
      this.lost(entry.leaseId, 'The server could not make the start weights.');
      throw error;
    }
  }

  /** A volunteer's wish; the lease it may bring goes into the answer to `join`, not into a notice. */
  ask(wish: Wish): void {
    this.#asking = wish.clientId;
    try {
      this.dispatch({ type: 'wish', wish });
    } finally {
      this.#asking = null;
    }
  }

  /** The oldest version that waits for an evaluator; null when there is none or the run wants none. */
  openEvaluation(): number | null {
    if (!this.#context.definition.settings.evaluate) return null;
    return this.evaluations.oldestOpen(this.#state.version);
  }

  /** Lets `ms` of running time pass. */
  tick(ms: number): void {
    for (const event of this.#postponed.splice(0)) this.dispatch(event);
    for (const { leaseId, silentMs } of this.leaseClock.elapse(ms)) {
      const reason = `The lease ran out: no sign of life for ${Math.round(silentMs / 1000)} s.`;
      this.lost(leaseId, reason, { late: true });
    }
    const { remainingMs, graceMs, late, merge } = this.#state;
    if (remainingMs !== null || graceMs !== null || late.length > 0 || merge) this.dispatch({ type: 'elapsed', ms });
  }

  /** `late`: the upload is taken for a while yet. */
  lost(leaseId: string, reason: string, { late }: { readonly late: boolean } = { late: false }): void {
    const entry = leaseOf(this.#state, leaseId);
    this.leaseClock.end(leaseId);
    if (entry) {
      this.log(
        'warning',
        `${this.label(entry.clientId)} is out of round ${this.#state.round}. ${reason}`,
        entry.clientId,
      );
    }
    this.dispatch({ type: 'lost', leaseId, reason, late });
  }

  dispatch(event: MachineEvent): void {
    if (this.#closed) return;
    const before = this.#state;
    // Most who go have nothing to take back.
    if (event.type === 'withdraw' && !before.wishes.some((wish) => wish.clientId === event.clientId)) return;
    const { state, effects } = step(before, event);
    if (event.type === 'elapsed' && effects.length === 0) {
      this.#state = state;
      this.#machineJournal.pass(event.ms, state);
      return;
    }
    try {
      // What ended is written before the state that builds on it.
      for (const effect of effects) {
        if (effect.type === 'abandoned') this.#writeAbandoned(effect.round, effect.reason);
        if (effect.type === 'credit') this.#credit(effect.late);
      }
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      // Time comes again by itself.
      if (event.type !== 'elapsed') this.#postponed.push(event);
      this.journal.failure(error, 'the disk is full: the end of the round waits');
      return;
    }
    this.#state = state;
    this.#machineJournal.append(event, state, { barrier: effects.some(({ type }) => type === 'phase') });
    for (const effect of effects) this.#carryOut(effect);
    if (state.run !== before.run || state.version !== before.version) this.runChanged();
    this.changed();
  }

  #carryOut(effect: Effect): void {
    switch (effect.type) {
      case 'granted': {
        const { lease } = effect;
        const { leaseId, clientId, key, rank, task, own, round } = lease;
        this.journal.event('granted', { round, leaseId, clientId, key, rank, task, own });
        if (lease.clientId === this.#asking) break;
        this.#background.run(async () => {
          const made = await this.makeLease(lease);
          if (this.hasLiveLease(lease.leaseId))
            for (const listener of this.#listeners) listener.granted(lease.clientId, made);
        });
        break;
      }
      case 'revoked':
        this.leaseClock.end(effect.leaseId);
        for (const listener of this.#listeners) {
          listener.revoked(effect.clientId, effect.leaseId, effect.reason, effect.lateMs);
        }
        break;
      case 'phase':
        this.log(
          effect.phase === 'abandoned' ? 'warning' : 'info',
          `Round ${effect.round}: ${effect.phase}.${effect.reason ? ` ${effect.reason}` : ''}`,
        );
        this.journal.event('phase', { round: effect.round, phase: effect.phase, reason: effect.reason });
        if (effect.phase === 'selecting' || (effect.phase === 'training' && this.#state.policy.mode === 'buffered'))
          this.#context.partials.sweep((leaseId) => this.#context.isAwaitedAnywhere(leaseId));
        break;
      case 'merge':
        this.#background.run(() => this.#merge(effect.round));
        break;
      case 'run-ended':
        this.log('info', this.outcome() ?? effect.run);
        this.journal.event('run-ended', { run: effect.run });
        break;
      case 'abandoned':
      case 'credit':
        break;
    }
  }

  /** A full disk ends no merge: it is tried again until its phase ends. */
  async #merge(round: number): Promise<void> {
    const wanted = () => !this.#closed && isMerging(this.#state, round);
    await this.#checked;
    while (wanted()) {
      try {
        await this.#tryMerge(round);
        return;
      } catch (error) {
        if (!isDiskFull(error)) throw error;
        this.log('error', `The disk is full, so round ${round} waits with its merge. Free some space.`);
        await pause(MERGE_AGAIN_MS);
      }
    }
  }

  async #tryMerge(round: number): Promise<void> {
    const state = this.#state;
    const global = this.archive.globalOf(state.version)?.sha256 ?? null;
    const outcome = await mergeRound(this.#context, state, round, global).catch((error: unknown) => {
      if (isDiskFull(error)) throw error;
      const reason = `Merging failed: ${messageOf(error)}`;
      if (!this.#closed) {
        this.journal.failure(error, `merging round ${round} failed`);
        this.journal.event('merge-failed', { round, reason });
      }
      const late = state.late.flatMap(({ arrived, leaseId }) => (arrived ? leaseId : []));
      return { ok: false as const, reason, quarantined: [], late };
    });
    if (this.#closed || !isMerging(this.#state, round)) return;
    const quarantined = outcome.ok ? (outcome.file.settled?.quarantined ?? []) : outcome.quarantined;
    for (const { leaseId, reason } of quarantined) {
      const entry = [...leasesOfMerge(state, round), ...state.late].find((lease) => lease.leaseId === leaseId);
      const clientId = entry?.clientId ?? leaseId;
      this.log('warning', `An upload of ${this.label(clientId)} was quarantined: ${reason}`, clientId);
      this.journal.event('quarantined', { round, leaseId, clientId, reason });
    }
    if (!outcome.ok) {
      this.dispatch({ type: 'merge-failed', round, reason: outcome.reason, quarantined, late: outcome.late });
      return;
    }
    this.archive.add(outcome.file);
    this.#committed(outcome.file);
  }

  /** The commit is on disk: tell everybody, and make the start weights the next round will most likely ask for. */
  #committed(file: RoundFile): void {
    const { record } = file;
    const { quarantined, late } = file.settled ?? { quarantined: quarantinedIn(this.#state, record), late: [] };
    this.#context.index.round(this.runId, record);
    this.journal.event('committed', { record });
    const ranks = [...new Set(record.contributions.map((item) => item.rank))];
    const outcome = record.reason ?? undefined;
    this.dispatch({ type: 'merged', round: record.round, quarantined, late, outcome });
    this.#background.run(async () => {
      for (const rank of ranks) await this.leases.start(record.version, this.leases.grantOf(rank));
    });
    const open = this.openEvaluation();
    if (open !== null) for (const listener of this.#listeners) listener.evaluationAvailable(open);
  }

  /** Late work at the end of a run: no merge will settle it, so the last record does. */
  #credit(late: readonly LateEntry[]): void {
    const last = this.archive.files().at(-1);
    const credited = late.flatMap((entry) => {
      const record = this.#context.store.readUpload(entry.round, entry.leaseId);
      if (!record) return [];
      const contribution = creditOf(record, creditedLate(entry, 'the run has ended'));
      // A server that was killed right here comes by again.
      const known = last?.record.contributions.some(
        (other) => other.sha256 === contribution.sha256 && other.clientId === contribution.clientId,
      );
      return known ? [] : [contribution];
    });
    const record = this.archive.credit(credited);
    if (record) this.#context.index.round(this.runId, record);
  }

  #writeAbandoned(round: number, reason: string): void {
    const record = this.archive.abandon(round, this.#state.version, reason, this.#context.now());
    this.#context.index.round(this.runId, record);
    this.journal.event('abandoned', { record });
    this.alert('abandoned-rounds', abandonedAlert(this.records()));
  }

  /** Something is wrong with the run, or (null) no longer is. */
  alert(kind: AlertKind, text: string | null): void {
    if (this.#context.observer.alert(this.runId, kind, text) && text !== null) this.log('error', text);
  }

  /** `clientId`: whom it concerns. */
  log(level: LogLine['level'], text: string, clientId?: string): void {
    this.journal.log(level, text, {
      round: this.#state.round,
      ...(clientId === undefined ? {} : { client: clientId }),
    });
    this.changed();
  }

  /** Nothing of this client is taken any more; a live lease was lost just now. */
  banned(clientId: string, leaseId: string | null, reason: string): void {
    for (const listener of this.#listeners) {
      if (leaseId !== null) listener.revoked(clientId, leaseId, reason, 0);
      listener.banned(clientId);
    }
  }

  label(clientId: string): string {
    return this.clients.nameOf(clientId) ?? `Volunteer ${clientId.slice(0, 6)}`;
  }

  changed(): void {
    for (const listener of this.#listeners) listener.changed();
  }

  runChanged(): void {
    for (const listener of this.#listeners) listener.runChanged();
  }

  /** Resolves when the uploads that were there at the start have been read through. */
  get checked(): Promise<void> {
    return this.#checked;
  }

  /** Takes no more events; resolves when work in progress has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#background.ended();
    await this.#machineJournal.close();
    this.#context.store.close();
  }
}

/** Leases whose upload may be on disk, or be taken back, without the state's knowing. */
const awaited = ({ leases, late, merge }: MachineState): readonly LeaseEntry[] => [
  ...leases.filter((lease) => lease.state === 'live' || lease.state === 'uploaded'),
  ...(merge?.leases ?? []).filter((lease) => lease.state === 'uploaded'),
  ...late,
];

const isMerging = ({ merge, phase, round: current }: MachineState, round: number): boolean =>
  merge?.round === round || (phase === 'merging' && current === round);

/** What a commit of an earlier version of the server has quarantined: such a file names clients, not leases. */
const quarantinedIn = ({ leases }: MachineState, { contributions }: RoundRecord): Quarantine[] =>
  leases.flatMap(({ state, leaseId, clientId }) => {
    const bad = contributions.find((item) => item.clientId === clientId && item.quarantined !== null);
    return state === 'uploaded' && bad ? [{ leaseId, reason: bad.quarantined ?? '' }] : [];
  });
