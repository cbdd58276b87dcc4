// Held-out loss of every committed version, by clients that hold the operator's token. A job of its own: no round waits
// for it, and a job handed to somebody who went silent is handed out again.
import { type EvaluationResult, ProtocolError } from '@weft/protocol';
import type { EvaluationFile, RunStore } from '../store/run-store.ts';
import type { LossByTask } from './views.ts';

/** Time an evaluator has before the job is given to another, in milliseconds. */
const JOB_MS = 10 * 60_000;

const jobIdOf = (runId: string, version: number): string => `${runId}-v${version}`;

export class Evaluations {
  readonly #store: RunStore;
  readonly #runId: string;
  readonly #tasks: readonly string[];
  readonly #now: () => number;
  readonly #done = new Map<number, EvaluationFile>();
  readonly #taken = new Map<number, { clientId: string; until: number }>();

  /** `now`: monotonic milliseconds. */
  constructor(store: RunStore, runId: string, tasks: readonly string[], now: () => number) {
    this.#store = store;
    this.#runId = runId;
    this.#tasks = tasks;
    this.#now = now;
    for (const file of store.readEvaluations()) this.#done.set(file.version, file);
  }

  /** The oldest version up to `latest` that nobody has measured or is measuring; null when there is none. */
  next(latest: number, clientId: string): { jobId: string; version: number } | null {
    for (let version = 0; version <= latest; version++) {
      if (this.#done.has(version)) continue;
      const taken = this.#taken.get(version);
      if (taken && taken.clientId !== clientId && taken.until > this.#now()) continue;
      this.#taken.set(version, { clientId, until: this.#now() + JOB_MS });
      return { jobId: jobIdOf(this.#runId, version), version };
    }
    return null;
  }

  /** The oldest version nobody has measured yet; null when all are. */
  oldestOpen(latest: number): number | null {
    for (let version = 0; version <= latest; version++) if (!this.#done.has(version)) return version;
    return null;
  }

  /** Gives back the jobs of a client that has gone. */
  release(clientId: string): void {
    for (const [version, taken] of this.#taken) if (taken.clientId === clientId) this.#taken.delete(version);
  }

  /** Keeps a report; returns its version. Throws 'evaluation-refused' for a job that was not this client's. */
  report(clientId: string, jobId: string, results: readonly EvaluationResult[], at: Date): number {
    const version = [...this.#taken.keys()].find((candidate) => jobIdOf(this.#runId, candidate) === jobId);
    if (version === undefined || this.#taken.get(version)?.clientId !== clientId) {
      throw new ProtocolError(
        'evaluation-refused',
        `The job ${jobId} is not this client's; ask evaluation:next for one.`,
      );
    }
    const measured = results.map((result) => result.task);
    const missing = this.#tasks.find((task) => !measured.includes(task));
    const stray = measured.find((task, i) => !this.#tasks.includes(task) || measured.indexOf(task) !== i);
    if (missing !== undefined || stray !== undefined) {
      const what = missing === undefined ? `names "${stray}", which it must not` : `lacks the task "${missing}"`;
      throw new ProtocolError(
        'evaluation-refused',
        `The report ${what}; it takes each of ${this.#tasks.join(', ')} once.`,
      );
    }
    const file: EvaluationFile = { version, at: at.toISOString(), clientId, results: [...results] };
    this.#store.writeEvaluation(file);
    this.#done.set(version, file);
    this.#taken.delete(version);
    return version;
  }

  /** Loss by task of a version; null until measured. */
  lossOf(version: number): LossByTask | null {
    const file = this.#done.get(version);
    return file ? Object.fromEntries(file.results.map((result) => [result.task, result.loss])) : null;
  }
}
