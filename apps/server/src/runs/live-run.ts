// One run as it lives: feeds the round machine with events and time, writes its state down before anybody hears of it, and
// carries out its effects. Transport and timers are the callers'; merging and files are passed in.
import { randomBytes } from 'node:crypto';
import {
  type EvaluationJob,
  type EvaluationResult,
  type Heartbeat,
  type Join,
  type JoinReply,
  type Lease,
  type LogLine,
  type Manifest,
  ProtocolError,
  type Receipt,
  type ReleaseReason,
  type RoundRecord,
  type RoundView,
  type RunSnapshot,
  type RunView,
  type UploadBegin,
} from '@weft/protocol';
import { liveLeaseOf } from '../coordinator/derive.ts';
import { initialState, step } from '../coordinator/machine.ts';
import type { Effect, LeaseEntry, MachineEvent, MachineState } from '../coordinator/types.ts';
import { messageOf } from '../errors.ts';
import type { AdapterSource } from '../http/adapter.ts';
import { Deliveries } from '../ingest/deliveries.ts';
import type { RoundFile } from '../store/run-store.ts';
import { checkJoin, RELEASE_REASONS } from './admission.ts';
import { abandonedAlert, lossAlert } from './alerts.ts';
import { Archive } from './archive.ts';
import { Background } from './background.ts';
import { Clients } from './clients.ts';
import { Evaluations } from './evaluation.ts';
import { type ExportWish, evaluationJob, exportSource } from './export.ts';
import { Journal } from './journal.ts';
import { LeaseClock } from './lease-clock.ts';
import { LeaseMaker } from './lease-maker.ts';
import { policyOf } from './policy.ts';
import { mergeRound } from './round-merge.ts';
import type { RunContext, RunListener } from './run-context.ts';
import { outcomeOf, roundView, runView, waitingReason } from './views.ts';

const PLAIN_WRITE_EVERY_MS = 2_000;

export class LiveRun {
  readonly runId: string;
  readonly #context: RunContext;
  readonly #listeners = new Set<RunListener>();
  readonly #leaseClock = new LeaseClock();
  readonly #clients: Clients;
  readonly #evaluations: Evaluations;
  readonly #leases: LeaseMaker;
  readonly #deliveries: Deliveries;
  readonly #journal: Journal;
  #state: MachineState;
  readonly #archive: Archive;
  #unwrittenMs = 0;
  /** The client whose lease goes into the answer to its question, not into a notice. */
  #asking: string | null = null;
  #closed = false;
  readonly #background: Background;

  constructor(context: RunContext) {
    const { definition, store, timing } = context;
    this.runId = definition.runId;
    this.#context = context;
    this.#journal = new Journal(store, context.logger.child({ run: this.runId }), context.now);
    this.#background = new Background((error) => {
      if (!this.#closed) this.#journal.failure(error, 'work of a run failed');
    });
    this.#clients = new Clients(context.monotonic);
    this.#evaluations = new Evaluations(store, this.runId, definition.settings.tasks, context.monotonic);
    this.#leases = new LeaseMaker(context, (version) => this.#archive.globalOf(version));
    this.#deliveries = new Deliveries(context);
    this.#archive = new Archive(store);
    this.#state = store.readState() ?? initialState(policyOf(definition.settings, timing));
  }

  /** Takes the run up where the server left it: every lease renewed, receipts and commits that the state missed added. */
  resume(): void {
    const { store } = this.#context;
    // Nobody is connected yet; those who waited ask again when they come back.
    this.#state = { ...this.#state, present: 0, wishes: [] };
    for (const record of store.readUploads(this.#state.round)) {
      this.#dispatch({ type: 'uploaded', leaseId: record.receipt.leaseId });
    }
    const ended = this.#archive.of(this.#state.round);
    if (ended?.global && this.#state.phase === 'merging') {
      this.#committed(ended);
    }
    for (const lease of this.#state.leases) {
      if (lease.state === 'live') this.#leaseClock.start(lease.leaseId, this.#context.timing.leaseMs);
    }
    if (this.#state.phase !== 'idle') this.#dispatch({ type: 'resumed' });
  }

  listen(listener: RunListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get state(): MachineState {
    return this.#state;
  }

  get createdAt(): string {
    return this.#context.definition.createdAt;
  }

  hasLiveLease(leaseId: string): boolean {
    return this.#state.leases.some((lease) => lease.leaseId === leaseId && lease.state === 'live');
  }

  view(): RunView {
    return runView(this.#context.definition, this.#state, this.#context.manifest.model, this.#outcome());
  }

  roundView(): RoundView {
    return roundView(this.runId, this.#state, this.#clients.present());
  }

  records(): RoundRecord[] {
    return this.#archive.records((version) => this.#evaluations.lossOf(version));
  }

  roundFiles(): readonly RoundFile[] {
    return this.#archive.files();
  }

  snapshot(): RunSnapshot {
    return {
      run: this.view(),
      round: this.roundView(),
      clients: this.#clients.rows(this.#state),
      rounds: this.records(),
      baseLoss: this.#evaluations.lossOf(0),
      log: this.#journal.lines(),
    };
  }

  manifest(): Manifest {
    return this.#context.manifest;
  }

  #outcome(): string | null {
    return outcomeOf(this.#state, this.records(), this.#evaluations.lossOf(0));
  }

  command(event: 'start' | 'pause' | 'stop' | 'close-round'): RunView {
    const { run, phase } = this.#state;
    const fits: Record<typeof event, boolean> = {
      start: run === 'created' || run === 'paused',
      pause: run === 'running',
      stop: run !== 'completed' && run !== 'stopped',
      'close-round': phase === 'selecting' || phase === 'training',
    };
    if (!fits[event]) {
      throw new ProtocolError('run-state', `A run that is ${run} with its round ${phase} cannot take "${event}".`);
    }
    this.log('info', `The operator asked for "${event}".`);
    this.#dispatch({ type: event });
    return this.view();
  }

  connected(clientId: string, name: string | null, volunteers: boolean): void {
    this.#clients.connected(clientId, name, volunteers);
    this.#dispatch({ type: 'present', count: this.#clients.present() });
  }

  /** A lease outlives its socket: the volunteer may come back before it runs out. */
  disconnected(clientId: string): void {
    if (this.#clients.disconnected(clientId)) {
      this.#evaluations.release(clientId);
      this.#dispatch({ type: 'withdraw', clientId });
    }
    this.#dispatch({ type: 'present', count: this.#clients.present() });
  }

  /** Any frame of a client is a sign of life of its lease. */
  sawFrame(clientId: string): void {
    this.#clients.seen(clientId);
    const lease = liveLeaseOf(this.#state, clientId);
    if (lease) this.#leaseClock.renew(lease.leaseId);
  }

  async join(clientId: string, join: Join): Promise<JoinReply> {
    checkJoin(join, this.#context.definition.settings, this.#state);
    // Who has pruned is granted what it kept: docs/decisions/0008-rank-self-pruning.md.
    const rank = this.#deliveries.cap(clientId, join.proposal.rank);
    const own = join.data.kind === 'own';
    const task = join.data.kind === 'task' ? join.data.task : null;
    this.#clients.proposed(clientId, join.device, rank);
    const held = liveLeaseOf(this.#state, clientId);
    const sameWish = held && held.rank === rank && held.own === own && (task === null || task === held.task);
    if (!sameWish) {
      if (held) this.#lost(held.leaseId, RELEASE_REASONS['rank-changed']);
      this.#asking = clientId;
      try {
        const leaseId = randomBytes(12).toString('hex');
        this.#dispatch({ type: 'wish', wish: { leaseId, clientId, key: this.#keyOf(clientId), rank, task, own } });
      } finally {
        this.#asking = null;
      }
    }
    const entry = liveLeaseOf(this.#state, clientId);
    if (entry) return { status: 'leased', lease: await this.#makeLease(entry) };
    return {
      status: 'waiting',
      reason: waitingReason(this.#state, clientId),
      // The server tells when a place opens; asking again is for those who missed it, and spread out.
      retryAfterMs: 10_000 + Math.floor(Math.random() * 10_000),
      round: this.roundView(),
    };
  }

  /** Keys are random, so an experiment that is to repeat itself goes by the names it gave its clients. */
  #keyOf(clientId: string): string {
    return (this.#state.policy.deterministic ? this.#clients.nameOf(clientId) : null) ?? clientId;
  }

  async #makeLease(entry: LeaseEntry): Promise<Lease> {
    const { round, version } = this.#state;
    try {
      const lease = await this.#leases.make(entry, round, version);
      // The time to answer starts when there is something to answer.
      if (this.hasLiveLease(entry.leaseId)) this.#leaseClock.start(entry.leaseId, lease.leaseMs);
      return lease;
    } catch (error) {
      this.log('error', `Start weights of version ${version} could not be made: ${messageOf(error)}`);
      this.#lost(entry.leaseId, 'The server could not make the start weights.');
      throw error;
    }
  }

  /** Gives up the wish to train, and the lease if there is one. */
  leave(clientId: string): void {
    const lease = liveLeaseOf(this.#state, clientId);
    if (lease) this.#lost(lease.leaseId, RELEASE_REASONS.stopped);
    this.#dispatch({ type: 'withdraw', clientId });
  }

  heartbeat(clientId: string, heartbeat: Heartbeat): { leaseMs: number; round: RoundView } {
    const entry = this.#entry(clientId, heartbeat.leaseId);
    const { leaseMs, hiddenLeaseMs } = this.#context.timing;
    const length = heartbeat.hidden ? hiddenLeaseMs : leaseMs;
    if (entry.state === 'live') this.#leaseClock.renew(entry.leaseId, length);
    this.#clients.progressed(clientId, heartbeat.progress);
    this.#changed();
    return { leaseMs: length, round: this.roundView() };
  }

  release(clientId: string, leaseId: string, reason: ReleaseReason): void {
    const lease = liveLeaseOf(this.#state, clientId);
    if (lease?.leaseId === leaseId) this.#lost(leaseId, RELEASE_REASONS[reason]);
  }

  /** The client's lease of this id in the round in progress, live or delivered; else throws what became of it. */
  #entry(clientId: string, leaseId: string): LeaseEntry {
    const entry = this.#state.leases.find((lease) => lease.leaseId === leaseId && lease.clientId === clientId);
    if (!entry) {
      throw new ProtocolError(
        'unknown-lease',
        `The lease ${leaseId} is not one of this round's for this client; join again.`,
      );
    }
    if (entry.state !== 'dropped') return entry;
    const open = this.#state.phase === 'selecting' || this.#state.phase === 'training';
    throw new ProtocolError(
      open ? 'lease-expired' : 'round-closed',
      `The lease is no longer valid. ${entry.reason ?? ''} Join again for the next round.`,
    );
  }

  async uploadBegin(clientId: string, begin: UploadBegin): Promise<{ offset: number }> {
    const known = this.#deliveries.known(clientId, begin.leaseId);
    if (known) return { offset: this.#deliveries.sameAs(known, begin.sha256).bytes };
    const entry = this.#entry(clientId, begin.leaseId);
    const lease = await this.#leases.make(entry, this.#state.round, this.#state.version);
    return { offset: await this.#deliveries.begin(lease, begin) };
  }

  async uploadChunk(clientId: string, leaseId: string, offset: number, bytes: Uint8Array): Promise<{ offset: number }> {
    const known = this.#deliveries.known(clientId, leaseId);
    if (known) return { offset: known.bytes };
    this.#entry(clientId, leaseId);
    return { offset: await this.#deliveries.chunk(leaseId, offset, bytes) };
  }

  async uploadCommit(clientId: string, leaseId: string, sha256: string): Promise<Receipt> {
    const known = this.#deliveries.known(clientId, leaseId);
    if (known) return this.#deliveries.sameAs(known, sha256);
    const entry = this.#entry(clientId, leaseId);
    const lease = await this.#leases.make(entry, this.#state.round, this.#state.version);
    const delivery = { lease, clientId, name: this.#clients.nameOf(clientId), own: entry.own };
    return this.#deliveries.commit(delivery, sha256, {
      checkOpen: () => void this.#entry(clientId, leaseId),
      accepted: (receipt, rank) => {
        this.#leaseClock.end(leaseId);
        this.#clients.uploaded(clientId, receipt.bytes);
        const what = lease.training.sparse ? 'of a sparse update' : `at rank ${rank}`;
        this.log('info', `${this.#label(clientId)} delivered ${receipt.bytes} bytes ${what}.`);
        this.#journal.event('uploaded', { clientId, leaseId, bytes: receipt.bytes, rank, sha256 });
        this.#dispatch({ type: 'uploaded', leaseId });
      },
    });
  }

  async nextEvaluation(clientId: string): Promise<EvaluationJob | null> {
    if (!this.#context.definition.settings.evaluate) return null;
    const next = this.#evaluations.next(this.#state.version, clientId);
    return next && evaluationJob(this.#context, this.#leases, next);
  }

  reportEvaluation(clientId: string, jobId: string, results: readonly EvaluationResult[]): void {
    const version = this.#evaluations.report(clientId, jobId, results, this.#context.now());
    const losses = results.map((result) => `${result.task} ${result.loss.toFixed(3)}`).join(', ');
    this.log('info', `Held-out loss of version ${version}: ${losses}.`);
    this.#journal.event('evaluated', { version, results });
    const records = this.records();
    const record = records.find((kept) => kept.version === version && kept.outcome === 'committed');
    if (record) this.#context.index.round(this.runId, record);
    this.#alert(lossAlert(version, records, this.#evaluations.lossOf(0)));
    this.#runChanged();
  }

  /** The oldest version that waits for an evaluator; null when there is none or the run wants none. */
  openEvaluation(): number | null {
    if (!this.#context.definition.settings.evaluate) return null;
    return this.#evaluations.oldestOpen(this.#state.version);
  }

  get eventsPath(): string {
    return this.#context.store.eventsPath;
  }

  /** Factors of a committed version, with all a model card tells. */
  adapterSource(wanted: ExportWish): Promise<AdapterSource> {
    const parts = { archive: this.#archive, leases: this.#leases };
    return exportSource(this.#context, parts, { run: this.view(), records: this.records() }, wanted);
  }

  /** Lets `ms` of running time pass. */
  tick(ms: number): void {
    for (const { leaseId, silentMs } of this.#leaseClock.elapse(ms)) {
      this.#lost(leaseId, `The lease ran out: no sign of life for ${Math.round(silentMs / 1000)} s.`);
    }
    if (this.#state.remainingMs !== null || this.#state.graceMs !== null) this.#dispatch({ type: 'elapsed', ms });
  }

  #lost(leaseId: string, reason: string): void {
    const entry = this.#state.leases.find((lease) => lease.leaseId === leaseId);
    this.#leaseClock.end(leaseId);
    if (entry) this.log('warning', `${this.#label(entry.clientId)} is out of round ${this.#state.round}. ${reason}`);
    this.#dispatch({ type: 'lost', leaseId, reason });
  }

  #dispatch(event: MachineEvent): void {
    if (this.#closed) return;
    const before = this.#state;
    const { state, effects } = step(before, event);
    this.#state = state;
    if (event.type === 'elapsed' && effects.length === 0) {
      this.#unwrittenMs += event.ms;
      if (this.#unwrittenMs < PLAIN_WRITE_EVERY_MS) return;
      this.#context.store.writeState(state, { flush: false });
      this.#unwrittenMs = 0;
      return;
    }
    // What ended is written before the state that builds on it.
    for (const effect of effects) if (effect.type === 'abandoned') this.#writeAbandoned(effect.round, effect.reason);
    this.#context.store.writeState(state, { flush: true });
    this.#unwrittenMs = 0;
    for (const effect of effects) this.#carryOut(effect);
    if (state.run !== before.run || state.version !== before.version) this.#runChanged();
    this.#changed();
  }

  #carryOut(effect: Effect): void {
    switch (effect.type) {
      case 'granted': {
        const { lease } = effect;
        this.#journal.event('granted', { ...lease, round: this.#state.round });
        if (lease.clientId === this.#asking) break;
        this.#background.run(async () => {
          const made = await this.#makeLease(lease);
          if (this.hasLiveLease(lease.leaseId))
            for (const listener of this.#listeners) listener.granted(lease.clientId, made);
        });
        break;
      }
      case 'revoked':
        this.#leaseClock.end(effect.leaseId);
        for (const listener of this.#listeners) listener.revoked(effect.clientId, effect.leaseId, effect.reason);
        break;
      case 'phase':
        this.log(
          effect.phase === 'abandoned' ? 'warning' : 'info',
          `Round ${effect.round}: ${effect.phase}.${effect.reason ? ` ${effect.reason}` : ''}`,
        );
        this.#journal.event('phase', { round: effect.round, phase: effect.phase, reason: effect.reason });
        if (effect.phase === 'selecting')
          this.#context.partials.sweep((leaseId) => this.#context.isLiveAnywhere(leaseId));
        break;
      case 'merge':
        this.#background.run(() => this.#merge(effect.round));
        break;
      case 'run-ended':
        this.log('info', this.#outcome() ?? effect.run);
        this.#journal.event('run-ended', { run: effect.run });
        break;
      case 'abandoned':
        break;
    }
  }

  async #merge(round: number): Promise<void> {
    const { store } = this.#context;
    const global = this.#archive.globalOf(this.#state.version)?.sha256 ?? null;
    const outcome = await mergeRound(this.#context, this.#state, store.readUploads(round), global).catch(
      (error: unknown) => {
        if (!this.#closed) this.#journal.failure(error, `merging round ${round} failed`);
        return { ok: false as const, reason: `Merging failed: ${messageOf(error)}`, quarantined: [] };
      },
    );
    if (this.#closed || this.#state.phase !== 'merging' || this.#state.round !== round) return;
    for (const { leaseId, reason } of outcome.quarantined) {
      const entry = this.#state.leases.find((lease) => lease.leaseId === leaseId);
      this.log('warning', `An upload of ${this.#label(entry?.clientId ?? leaseId)} was quarantined: ${reason}`);
    }
    if (!outcome.ok) {
      this.#dispatch({ type: 'merge-failed', round, reason: outcome.reason, quarantined: outcome.quarantined });
      return;
    }
    this.#archive.add(outcome.file);
    this.#committed(outcome.file);
  }

  /** The commit is on disk: tell everybody, and make the start weights the next round will most likely ask for. */
  #committed(file: RoundFile): void {
    const { record } = file;
    const quarantined = this.#state.leases.flatMap((lease) => {
      const contribution = record.contributions.find(
        (item) => item.clientId === lease.clientId && item.quarantined !== null,
      );
      return lease.state === 'uploaded' && contribution
        ? [{ leaseId: lease.leaseId, reason: contribution.quarantined ?? '' }]
        : [];
    });
    this.#context.index.round(this.runId, record);
    this.#journal.event('committed', { record });
    const ranks = [...new Set(record.contributions.map((item) => item.rank))];
    this.#dispatch({ type: 'merged', round: record.round, quarantined });
    this.#background.run(async () => {
      for (const rank of ranks) await this.#leases.start(record.version, this.#leases.grantOf(rank));
    });
    const open = this.openEvaluation();
    if (open !== null) for (const listener of this.#listeners) listener.evaluationAvailable(open);
  }

  #writeAbandoned(round: number, reason: string): void {
    const record = this.#archive.abandon(round, this.#state.version, reason, this.#context.now());
    this.#context.index.round(this.runId, record);
    this.#journal.event('abandoned', { record });
    this.#alert(abandonedAlert(this.records()));
  }

  #alert(text: string | null): void {
    if (text !== null) this.log('error', text);
  }

  log(level: LogLine['level'], text: string): void {
    this.#journal.log(level, text);
    this.#changed();
  }

  #label(clientId: string): string {
    return this.#clients.nameOf(clientId) ?? `Volunteer ${clientId.slice(0, 6)}`;
  }

  #changed(): void {
    for (const listener of this.#listeners) listener.changed();
  }

  #runChanged(): void {
    for (const listener of this.#listeners) listener.runChanged();
  }

  /** Takes no more events; resolves when work in progress has ended. */
  async close(): Promise<void> {
    if (!this.#closed) this.#context.store.writeState(this.#state, { flush: true });
    this.#closed = true;
    await this.#background.ended();
  }
}
