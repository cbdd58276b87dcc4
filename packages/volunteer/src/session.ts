// One volunteer's session: what the tab, the command line, the fleet and the load tool run. Decides what comes next and
// what an error means; handshake (line.ts), files, queue, a lease's turn (turns.ts) and uploads are rooms of their own.
// Everything that touches the outside is passed in (ports.ts).
import { parseDataLines } from '@weft/formats';
import type { ForgetReply, Lease, OwnLimits, ReleaseReason, RoundView } from '@weft/protocol';
import { ProtocolError } from '@weft/protocol';
import { abortable, Condition } from './clock.ts';
import { Device } from './device.ts';
import { SessionError } from './errors.ts';
import { leaveRound, releaseLease } from './farewell.ts';
import { fetchModel } from './fetch-model.ts';
import { RunFiles, type VolunteerFiles } from './files.ts';
import { type Admission, Line } from './line.ts';
import { followRun } from './notices.ts';
import { choiceOf, type SessionData, type SessionOptions, shownData } from './options.ts';
import { obtainLease } from './place.ts';
import type { Clock, ModelFiles } from './ports.ts';
import {
  faultOf,
  initialState,
  interruption,
  NOTHING_GOING_ON,
  type SessionState,
  StateHolder,
  type StateListener,
  withoutReceipt,
} from './state.ts';
import { Turns } from './turns.ts';
import { hasEnded, stoppedSentence, waitingSentence } from './words.ts';

/** How long the notice of a run's end may lag behind the refusal to join it. */
const END_NOTICE_MS = 5_000;

export class VolunteerSession {
  readonly #options: SessionOptions;
  readonly #holder: StateHolder;
  /** Poked whenever something changes that somebody may wait for. */
  readonly #condition = new Condition();
  readonly #random: () => number;
  readonly #files: VolunteerFiles;
  readonly #device: Device;
  readonly #turns: Turns;
  /** Aborted by close(). */
  readonly #closing = new AbortController();
  readonly #unsubscribe: (() => void)[] = [];
  #currentLine: Line | null = null;
  /** What to train on: as the session was made, until setData(). */
  #data: SessionData;
  #model: ModelFiles | null = null;
  #preparing: Promise<void> | null = null;
  #working: Promise<void> | null = null;
  #work: AbortController | null = null;
  /** The last stop's words to the server. Never rejects. */
  #leaving: Promise<void> = Promise.resolve();
  /** A lease that came by notice, not taken up yet. */
  #granted: Lease | null = null;
  #wishChanged = false;
  /** Whether limits or device have changed since the trainer was asked. */
  #proposalStale = true;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#random = options.random ?? Math.random;
    this.#device = new Device(options.trainer, options.reopenTrainer);
    const { data, ownLimits, downloads, storage, clock } = options;
    this.#data = data;
    this.#holder = new StateHolder(initialState(ownLimits, shownData(data, null)));
    const onRetry = (error: Error | null) => this.#interrupted(error);
    this.#files = options.files ?? new RunFiles({ downloads, storage, clock, random: this.#random, onRetry });
    this.#turns = new Turns({
      files: this.#files,
      device: this.#device,
      holder: this.#holder,
      condition: this.#condition,
      clock,
      hidden: () => options.hidden?.() ?? false,
      onRound: (round) => this.#sawRound(round),
      release: (leaseId, reason) => this.#release(leaseId, reason),
      onRecovery: () => {
        this.#proposalStale = true;
      },
    });
  }

  get state(): SessionState {
    return this.#holder.state;
  }

  /** Calls `listener` with every new snapshot; returns a function that ends it. */
  subscribe(listener: StateListener): () => void {
    return this.#holder.subscribe(listener);
  }

  /**
   * Connects, fetches the model, measures the device: after it the verdict and the price are known. Once done, calling
   * again does nothing; after a failure it tries again. Rejects with what went wrong, which is also in `state.error`.
   */
  prepare(): Promise<void> {
    this.#preparing ??= this.#failing(this.#prepare());
    return this.#preparing;
  }

  /** Joins rounds until the run ends or somebody stops it. Rejects with what went wrong. */
  start(): Promise<void> {
    this.#working ??= this.#start().finally(() => {
      this.#working = null;
    });
    return this.#working;
  }

  /** Holds everything that costs the device something; a lease is kept alive meanwhile. */
  pause(): void {
    this.#setPaused(true);
  }

  resume(): void {
    this.#setPaused(false);
  }

  #setPaused(paused: boolean): void {
    if (this.state.paused === paused) return;
    this.#holder.setPaused(paused);
    this.#turns.beat();
    this.#condition.poke();
  }

  /** Delivers the round in progress, then stops; without a lease it stops at once. */
  finishRound(): void {
    if (!this.#work) return;
    this.#holder.update({ finishing: true });
    this.resume();
    this.#condition.poke();
  }

  /** Stops and gives the lease back. Resolves when the server knows, or after a few seconds without its answer. */
  async stop(reason: ReleaseReason = 'stopped'): Promise<void> {
    const work = this.#work;
    if (!work || work.signal.aborted) return;
    const { lease } = this.state;
    work.abort(new SessionError('closed', 'The session was stopped.'));
    this.#leaving = this.#leave(lease?.leaseId ?? null, reason);
    await this.#leaving;
  }

  /** New limits: they count from the next round on, or with none in progress at once; resolves with the rank chosen. */
  async setOwnLimits(ownLimits: OwnLimits): Promise<void> {
    this.#holder.update({ ownLimits });
    this.#proposalStale = true;
    this.#wishChanged = true;
    this.#condition.poke();
    if (this.#work || !this.#model) return;
    const before = this.#preparing?.catch(() => undefined) ?? Promise.resolve();
    this.#preparing = this.#failing(before.then(() => this.#measure(this.#closing.signal)));
    // Whoever awaits prepare() or start() hears of a failure; the snapshot tells the others.
    await this.#preparing.catch(() => undefined);
  }

  /**
   * Another task, or the volunteer's own file: counts from the next round on. Throws FormatError naming the first bad line,
   * and then what was chosen before stays.
   */
  setData(data: SessionData): void {
    // Before anything is asked of the server: a bad line is named here, on the device.
    const examples = data.kind === 'own' ? parseDataLines(data.rows, 'your file').length : null;
    this.#data = data;
    this.#holder.update({ data: shownData(data, examples) });
    this.#wishChanged = true;
    this.#condition.poke();
  }

  /** Takes back an upload that is not merged yet. Rejects with the server's refusal, such as 'already-merged'. */
  async withdraw(receiptId: string): Promise<void> {
    await this.#line().request('upload:withdraw', { receiptId }, this.#closing.signal);
    this.#holder.update(withoutReceipt(this.state, receiptId));
  }

  /** Stops, and has the server forget this key in this run. What the host keeps is the host's to delete. */
  async forget(): Promise<ForgetReply> {
    await this.stop();
    await Promise.allSettled([this.#working]);
    const reply = await this.#line().request('volunteer:forget', {}, this.#closing.signal);
    const { totals, receipts } = initialState(this.state.ownLimits, this.state.data);
    this.#holder.update({ totals, receipts, losses: [], note: null });
    return reply;
  }

  /** To be called when the tab is hidden or shown: tells the server at once, which sets the lease's length by it. */
  visibilityChanged(): void {
    this.#turns.beat();
  }

  /** Ends everything and frees connection and GPU. A lease is given back as 'page-closed'. */
  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    await this.stop('page-closed');
    this.#closing.abort(new SessionError('closed', 'The session was closed.'));
    await Promise.allSettled([this.#preparing, this.#working]);
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    this.#currentLine?.close();
    this.#options.transport.close();
    this.#device.close();
  }

  /** Passes `work` on; a failure is shown, and prepare() may be called again. */
  async #failing(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      this.#preparing = null;
      throw this.#failed(error);
    }
  }

  async #prepare(): Promise<void> {
    const { signal } = this.#closing;
    signal.throwIfAborted();
    this.#holder.update({ error: null, outcome: null });
    if (this.#data.kind === 'own' && this.state.data.examples === null) this.setData(this.#data);
    this.#holder.enter('connecting');
    const { run } = await this.#line().admitted(signal);
    this.#holder.enter('downloading');
    this.#model = await fetchModel(this.#files, this.#holder, run, signal, () => this.#whenRunning(signal));
    await this.#measure(signal);
  }

  async #measure(signal: AbortSignal): Promise<void> {
    this.#holder.update({ error: null });
    this.#holder.enter('preparing');
    if (await this.#device.revive()) this.#proposalStale = true;
    await this.#propose(signal);
    this.#holder.enter('ready');
  }

  /** The line to the server; a new one when there is none or its handshake was refused. */
  #line(): Line {
    if (this.#currentLine && !this.#currentLine.isRefused) return this.#currentLine;
    this.#currentLine?.close();
    if (this.#unsubscribe.length === 0) this.#listen();
    const { transport, identities, clock, runId, name, client, operatorToken = null, invite = null } = this.#options;
    const hello = { runId: this.state.run?.runId ?? runId, name, client, operatorToken, invite };
    this.#currentLine = new Line(
      { transport, identities, clock, random: this.#random, hello },
      {
        admitted: (admission) => this.#admitted(admission),
        interrupted: (error) => this.#interrupted(error),
        refused: (error) => this.#refused(error),
      },
    );
    return this.#currentLine;
  }

  #listen(): void {
    this.#unsubscribe.push(
      ...followRun(this.#options.transport, {
        runId: () => this.state.run?.runId ?? null,
        run: (run) => {
          this.#holder.update({ run });
          this.#condition.poke();
        },
        round: (round) => this.#sawRound(round),
        granted: (lease) => {
          this.#granted = lease;
          this.#condition.poke();
        },
        revoked: ({ leaseId, reason, lateMs }) => {
          if (this.#granted?.leaseId === leaseId) this.#granted = null;
          this.#turns.revoked(leaseId, reason, lateMs);
        },
      }),
    );
  }

  #admitted({ clientId, run, round }: Admission): void {
    const { error } = this.state;
    this.#holder.update({ clientId, run, connected: true, error: error?.retrying ? null : error });
    this.#sawRound(round);
    this.#turns.beat();
  }

  /** Said at once: a session that is paused asks the server for nothing, and would not learn of it. */
  #refused(error: Error): void {
    this.#holder.update({ connected: false, error: faultOf(error) });
    this.#condition.poke();
  }

  /** `error` null: it goes on again. */
  #interrupted(error: Error | null): void {
    if (error === null) {
      if (this.state.error?.retrying) this.#holder.update({ error: null });
      return;
    }
    this.#holder.update(interruption(error, this.state.connected));
    this.#condition.poke();
  }

  #sawRound(round: RoundView): void {
    if (round.runId !== this.state.run?.runId) return;
    const phaseEndsAt = round.remainingMs === null ? null : this.#options.clock.now() + round.remainingMs;
    this.#holder.update({ round, phaseEndsAt });
    this.#condition.poke();
  }

  /** Asks the trainer where limits or device have changed; else its last word stands, and with it the compiled plan. */
  async #propose(signal: AbortSignal): Promise<void> {
    const { run, ownLimits } = this.state;
    if (!run || !this.#model) throw new SessionError('closed', 'The session is not prepared; call prepare() first.');
    this.#wishChanged = false;
    if (!this.#proposalStale) return;
    const proposal = await this.#device.propose(run, this.#model, ownLimits, signal);
    // Limits that changed while the trainer was busy ask for another look.
    this.#proposalStale = ownLimits !== this.state.ownLimits;
    this.#holder.update({ proposal, device: this.#device.report() });
  }

  async #start(): Promise<void> {
    this.#closing.signal.throwIfAborted();
    const work = new AbortController();
    this.#work = work;
    const signal = AbortSignal.any([work.signal, this.#closing.signal]);
    this.#turns.startOver();
    this.#holder.update({ finishing: false, outcome: null });
    try {
      await abortable(this.prepare(), signal);
      this.#holder.update({ error: null });
      await this.#rounds(signal);
    } catch (error) {
      if (!signal.aborted) throw this.#failed(error);
      await this.#leaving;
      if (this.#model) this.#end('stopped', stoppedSentence(this.state.totals.rounds));
    } finally {
      this.#work = null;
      this.#granted = null;
    }
  }

  #end(stage: 'stopped' | 'finished', outcome: string): void {
    this.#holder.update({ ...NOTHING_GOING_ON, outcome });
    this.#holder.setPaused(false);
    this.#holder.enter(stage);
  }

  async #rounds(signal: AbortSignal): Promise<void> {
    if (await this.#device.revive()) this.#proposalStale = true;
    for (;;) {
      this.#holder.enter('waiting');
      await this.#whenRunning(signal);
      if (hasEnded(this.state.run)) {
        this.#end('finished', this.state.run?.outcome ?? 'The run has ended.');
        return;
      }
      if (this.state.finishing) {
        await this.#leave(null, 'stopped');
        this.#end('stopped', stoppedSentence(this.state.totals.rounds));
        return;
      }
      await this.#propose(signal);
      const lease = await this.#place(signal);
      // A lease for a wish that has changed meanwhile is exchanged by the next one.
      if (lease && !this.#wishChanged) await this.#play(lease, signal);
    }
  }

  /** A lease for the latest proposal; null when something changed that asks for a fresh look first. */
  async #place(signal: AbortSignal): Promise<Lease | null> {
    const { clock } = this.#options;
    const { proposal } = this.state;
    if (!proposal) throw new SessionError('closed', 'There is no proposal; call prepare() first.');
    const line = this.#line();
    try {
      const lease = await obtainLease({
        line,
        clock,
        condition: this.#condition,
        join: { device: this.#device.report(), proposal, data: choiceOf(this.#data, this.state.data.examples) },
        signal,
        takeGranted: () => {
          const lease = this.#granted;
          this.#granted = null;
          return lease;
        },
        changed: () => this.#wishChanged || this.state.paused || this.state.finishing || hasEnded(this.state.run),
        round: () => this.state.round,
        onWaiting: (round, reason) => this.#waiting(round, reason),
      });
      // A place must not be held for somebody who paused.
      if (!lease && this.state.paused) await line.request('round:leave', {}, signal);
      return lease;
    } catch (error) {
      if (!(error instanceof ProtocolError) || error.code !== 'run-not-open') throw error;
      // The end of a run is no error; its notice may come a moment later.
      const ended = () => hasEnded(this.state.run);
      if (await this.#condition.until(ended, signal, { clock, ms: END_NOTICE_MS })) return null;
      throw error;
    }
  }

  #waiting(round: RoundView, reason: string | null): void {
    if (round !== this.state.round) this.#sawRound(round);
    const { run } = this.state;
    if (run) this.#holder.update({ waitingFor: waitingSentence(run, round, reason) });
  }

  #play(lease: Lease, signal: AbortSignal): Promise<void> {
    const { manifest } = this.state;
    const model = this.#model;
    if (!manifest || !model) throw new SessionError('closed', 'The session is not prepared; call prepare() first.');
    const ownRows = this.#data.kind === 'own' ? this.#data.rows : null;
    return this.#turns.take({ line: this.#line(), lease, manifest, model, ownRows, signal });
  }

  #release(leaseId: string, reason: ReleaseReason): Promise<void> {
    return this.#tell((line, clock) => releaseLease(line, clock, leaseId, reason));
  }

  /** Gives back the lease, if there is one, and the wish for another. */
  async #leave(leaseId: string | null, reason: ReleaseReason): Promise<void> {
    if (leaseId !== null) await this.#release(leaseId, reason);
    await this.#tell(leaveRound);
  }

  async #tell(farewell: (line: Line, clock: Clock) => Promise<string | null>): Promise<void> {
    const note = this.#currentLine && (await farewell(this.#currentLine, this.#options.clock));
    if (note) this.#holder.update({ note });
  }

  #whenRunning(signal: AbortSignal): Promise<void> {
    return this.#condition.until(() => !this.state.paused, signal).then(() => undefined);
  }

  /** Shows an error that ends the work; returns it. */
  #failed(error: unknown): unknown {
    if (this.#closing.signal.aborted) return error;
    this.#holder.update({ ...NOTHING_GOING_ON, error: faultOf(error) });
    this.#holder.enter('failed');
    return error;
  }
}
