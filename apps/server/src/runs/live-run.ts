// One run as the rest of the server sees it: views, the operator's commands, evaluations, exports; what its volunteers ask for
// is passed on to participation.ts, and both stand on run-driver.ts, which keeps the round going.
import {
  type ClientPage,
  type ClientQuery,
  type EvaluationJob,
  type EvaluationResult,
  type LogLine,
  type Manifest,
  ProtocolError,
  type RoundRecord,
  type RoundView,
  type RunSettings,
  type RunSnapshot,
  type RunView,
} from '@weft/protocol';
import type { MachineEvent, MachineState } from '../coordinator/types.ts';
import type { AdapterSource } from '../http/adapter.ts';
import { Rights } from '../receipts/rights.ts';
import type { SweptRun } from '../store/retention.ts';
import type { RoundFile } from '../store/run-store.ts';
import { lossAlert } from './alerts.ts';
import { type ExportWish, evaluationJob, exportSource } from './export.ts';
import { Participation } from './participation.ts';
import type { RunContext, RunListener } from './run-context.ts';
import { RunDriver } from './run-driver.ts';

/** What the operator may ask of a run. */
export type RunCommand = Extract<
  MachineEvent,
  { readonly type: 'start' | 'pause' | 'stop' | 'close-round' | 'abort-round' | 'extend' }
>;

export class LiveRun {
  readonly runId: string;
  /** What the run's volunteers ask for. */
  readonly volunteers: Participation;
  /** What they may ask of work they have done. */
  readonly rights: Rights;
  readonly #context: RunContext;
  readonly #driver: RunDriver;

  constructor(context: RunContext) {
    this.runId = context.definition.runId;
    this.#context = context;
    this.#driver = new RunDriver(context);
    this.volunteers = new Participation(context, this.#driver);
    this.rights = new Rights(context, this.#driver, this.volunteers);
  }

  resume(): void {
    this.rights.resume();
    this.#driver.resume();
  }

  /** Resolves when the uploads that were there at the start have been read through. */
  get checked(): Promise<void> {
    return this.#driver.checked;
  }

  listen(listener: RunListener): () => void {
    return this.#driver.listen(listener);
  }

  get state(): MachineState {
    return this.#driver.state;
  }

  get settings(): RunSettings {
    return this.#context.definition.settings;
  }

  get createdAt(): string {
    return this.#context.definition.createdAt;
  }

  /** Whether an upload of this lease is still taken. */
  mayDeliver(leaseId: string): boolean {
    return this.#driver.mayDeliver(leaseId);
  }

  view(): RunView {
    return this.#driver.view();
  }

  roundView(): RoundView {
    return this.#driver.roundView();
  }

  records(): RoundRecord[] {
    return this.#driver.records();
  }

  roundFiles(): readonly RoundFile[] {
    return this.#driver.archive.files();
  }

  /** The run as far as the bytes of its uploads go. */
  sweptRun(): SweptRun {
    const { archive } = this.#driver;
    const { leases, late, merge, phase } = this.state;
    const isOpen = phase !== 'committed' && phase !== 'abandoned';
    const waiting = [...(isOpen ? leases : []), ...late, ...(merge?.leases ?? [])];
    const needed = new Set(waiting.map((lease) => lease.leaseId));
    return {
      store: this.#context.store,
      endedAt: (round) => {
        if (isOpen && round === this.state.round) return null;
        const ended = archive.of(round);
        return ended ? Date.parse(ended.record.endedAt) : null;
      },
      isNeeded: (leaseId) => needed.has(leaseId),
    };
  }

  snapshot(): RunSnapshot {
    return {
      run: this.view(),
      round: this.roundView(),
      clients: this.#driver.clients.rows(this.#driver.state),
      clientCounts: this.#driver.clients.counts(this.#driver.state),
      rounds: this.records(),
      baseLoss: this.#driver.evaluations.lossOf(0),
      log: this.#driver.journal.lines(),
    };
  }

  /** A page of the device table. */
  clients(query: ClientQuery): ClientPage {
    return this.#driver.clients.query(this.#driver.state, query);
  }

  manifest(): Manifest {
    return this.#context.manifest;
  }

  /** Throws ProtocolError 'run-state' where the command does not fit. */
  command(command: RunCommand): RunView {
    const { run, phase } = this.#driver.state;
    const open = phase === 'selecting' || phase === 'training';
    const fits: Record<RunCommand['type'], boolean> = {
      start: run === 'created' || run === 'paused',
      pause: run === 'running',
      stop: run !== 'completed' && run !== 'stopped',
      'close-round': open,
      'abort-round': open || phase === 'merging',
      extend: open || phase === 'merging',
    };
    const { type } = command;
    if (!fits[type]) {
      throw new ProtocolError('run-state', `A run that is ${run} with its round ${phase} cannot take "${type}".`);
    }
    this.#driver.journal.event('command', { command });
    this.#driver.dispatch(command);
    return this.view();
  }

  async nextEvaluation(clientId: string): Promise<EvaluationJob | null> {
    if (!this.#context.definition.settings.evaluate) return null;
    const next = this.#driver.evaluations.next(this.#driver.state.version, clientId);
    return next && evaluationJob(this.#context, this.#driver.leases, next);
  }

  reportEvaluation(clientId: string, jobId: string, results: readonly EvaluationResult[]): void {
    const version = this.#driver.evaluations.report(clientId, jobId, results, this.#context.now());
    const losses = results.map((result) => `${result.task} ${result.loss.toFixed(3)}`).join(', ');
    this.log('info', `Held-out loss of version ${version}: ${losses}.`);
    this.#driver.journal.event('evaluated', { version, results: [...results] });
    const records = this.records();
    const record = records.find((kept) => kept.version === version && kept.outcome === 'committed');
    if (record) this.#context.index.round(this.runId, record);
    this.#driver.alert('loss-rose', lossAlert(version, records, this.#driver.evaluations.lossOf(0)));
    this.#driver.runChanged();
  }

  openEvaluation(): number | null {
    return this.#driver.openEvaluation();
  }

  /** Files of the run's events, older first. */
  get eventPaths(): string[] {
    return this.#context.store.eventPaths;
  }

  /** Factors of a committed version, with all a model card tells. */
  adapterSource(wanted: ExportWish): Promise<AdapterSource> {
    const parts = { archive: this.#driver.archive, leases: this.#driver.leases };
    return exportSource(this.#context, parts, { run: this.view(), records: this.records() }, wanted);
  }

  tick(ms: number): void {
    this.#driver.tick(ms);
  }

  log(level: LogLine['level'], text: string): void {
    this.#driver.log(level, text);
  }

  close(): Promise<void> {
    return this.#driver.close();
  }
}
