// The operator's evaluator: measures committed versions on the tasks' held-out rows, one job after another, until the run
// has ended and nothing is left to measure. Takes part in no round.
import type { EvaluationJob, EvaluationResult, Hello, Manifest, RunView } from '@weft/protocol';
import { ProtocolError } from '@weft/protocol';
import { Condition } from './clock.ts';
import { RunFiles } from './files.ts';
import { Line } from './line.ts';
import type { Clock, Downloads, Identities, ModelFiles, Storage, Trainer, Transport } from './ports.ts';
import { hasEnded } from './words.ts';

export interface EvaluatorOptions {
  readonly transport: Transport;
  readonly downloads: Downloads;
  readonly storage: Storage;
  readonly trainer: Trainer;
  readonly identities: Identities;
  readonly clock: Clock;
  readonly client: Hello['client'];
  readonly name: string | null;
  readonly runId: string | null;
  /** Token of an operator: the admin token, or a session's. */
  readonly operatorToken: string;
  readonly random?: () => number;
}

export interface Evaluation {
  readonly version: number;
  readonly results: readonly EvaluationResult[];
}

export type EvaluatorEvent =
  | { readonly kind: 'connected'; readonly run: RunView }
  | { readonly kind: 'interrupted'; readonly error: Error }
  | { readonly kind: 'measuring'; readonly job: EvaluationJob }
  | ({ readonly kind: 'measured' } & Evaluation)
  /** Another evaluator had the job, or the server did not take the report. */
  | { readonly kind: 'refused'; readonly version: number; readonly error: ProtocolError }
  | { readonly kind: 'idle'; readonly run: RunView };

/** A job may become free without notice, when the client that had it went away. */
const ASK_AGAIN_MS = 30_000;

export class EvaluatorSession {
  readonly #options: EvaluatorOptions;
  readonly #listeners = new Set<(event: EvaluatorEvent) => void>();
  readonly #condition = new Condition();
  readonly #files: RunFiles;
  #run: RunView | null = null;
  /** Counts what could have made a job available. */
  #news = 0;
  #refusedJob: string | null = null;

  constructor(options: EvaluatorOptions) {
    this.#options = options;
    const { downloads, storage, clock, random = Math.random } = options;
    const onRetry = (error: Error | null) => {
      if (error) this.#tell({ kind: 'interrupted', error });
    };
    this.#files = new RunFiles({ downloads, storage, clock, random, onRetry });
  }

  subscribe(listener: (event: EvaluatorEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #tell(event: EvaluatorEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }

  /**
   * Works until the run has ended and every version is measured; resolves with what this evaluator measured. Rejects with
   * what went wrong, or with the signal's reason. Closes transport and trainer in any case.
   */
  async run(signal: AbortSignal): Promise<Evaluation[]> {
    const { transport, trainer, identities, clock, runId, name, client, operatorToken, random } = this.#options;
    const newsAbout = () => {
      this.#news += 1;
      this.#condition.poke();
    };
    const unsubscribe = [
      transport.onNotice('run:state', (run) => {
        if (run.runId === this.#run?.runId) this.#run = run;
        newsAbout();
      }),
      transport.onNotice('evaluation:available', newsAbout),
    ];
    const line = new Line(
      {
        transport,
        identities,
        clock,
        random: random ?? Math.random,
        hello: { runId, name, client, operatorToken, invite: null },
      },
      {
        admitted: ({ run }) => {
          this.#run = run;
          this.#tell({ kind: 'connected', run });
          newsAbout();
        },
        interrupted: (error) => this.#tell({ kind: 'interrupted', error }),
        // Whoever waits for the line is told.
        refused: () => undefined,
      },
    );
    try {
      return await this.#work(line, signal);
    } finally {
      for (const stop of unsubscribe) stop();
      line.close();
      transport.close();
      trainer.close();
    }
  }

  async #work(line: Line, signal: AbortSignal): Promise<Evaluation[]> {
    const { run } = await line.admitted(signal);
    const manifest = await this.#files.manifest(run, signal);
    const fetching = { signal, whenRunning: () => Promise.resolve(), onBytes: () => undefined };
    const model = await this.#files.model(manifest, fetching);
    const measured: Evaluation[] = [];
    for (;;) {
      const news = this.#news;
      const { job } = await line.request('evaluation:next', {}, signal);
      if (job) {
        const evaluation = await this.#measure(line, manifest, model, job, signal);
        if (evaluation) measured.push(evaluation);
        continue;
      }
      const now = this.#run ?? run;
      if (hasEnded(now)) return measured;
      this.#tell({ kind: 'idle', run: now });
      await this.#condition.until(() => this.#news !== news, signal, { clock: this.#options.clock, ms: ASK_AGAIN_MS });
    }
  }

  async #measure(
    line: Line,
    manifest: Manifest,
    model: ModelFiles,
    job: EvaluationJob,
    signal: AbortSignal,
  ): Promise<Evaluation | null> {
    const { trainer } = this.#options;
    const fetching = { signal, whenRunning: () => Promise.resolve(), onBytes: () => undefined };
    this.#tell({ kind: 'measuring', job });
    const adapter = job.adapter ? await this.#files.blob(job.adapter, manifest.pieceBytes, fetching) : null;
    const rows = new Map<string, string>();
    for (const task of job.tasks) rows.set(task, await this.#files.rows(manifest, task, 'test', fetching));
    const results = await trainer.evaluate(model, job, adapter, rows, signal);
    try {
      await line.request('evaluation:report', { jobId: job.jobId, results }, signal);
    } catch (error) {
      // Reported before a broken line hid the answer, or taken over by another evaluator while this one was away.
      if (!(error instanceof ProtocolError) || error.code !== 'evaluation-refused') throw error;
      // The same job again would be refused again.
      if (this.#refusedJob === job.jobId) throw error;
      this.#refusedJob = job.jobId;
      this.#tell({ kind: 'refused', version: job.version, error });
      return null;
    }
    const evaluation = { version: job.version, results };
    this.#tell({ kind: 'measured', ...evaluation });
    return evaluation;
  }
}
