// All matrices of a merge, one after the other in this process or spread over processes of their own; what comes out does not
// depend on which.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { processPool } from '@weft/server/merge';
import { CommandError } from '../../command.ts';
import { type MatrixJob, type MergedMatrix, mergeMatrix } from './matrix-job.ts';
import type { FailedMatrix, MatrixResult } from './worker.ts';

export interface MergeRun {
  /** Processes at most; 1 is this one. */
  readonly jobs: number;
  readonly signal: AbortSignal;
  onMerged(merged: MergedMatrix): void;
}

type JobOf = (module: string) => MatrixJob;

/**
 * Merges every module once, in any order; its job is made when it is its turn. Throws what `mergeMatrix` throws, and CommandError
 * 'merge-process' or 'interrupted'.
 */
export async function mergeMatrices(modules: readonly string[], jobOf: JobOf, run: MergeRun): Promise<void> {
  if (Math.min(run.jobs, modules.length) > 1) return inProcesses(modules, jobOf, run);
  for (const module of modules) {
    run.onMerged(mergeMatrix(jobOf(module)));
    // A turn of the event loop, in which Ctrl-C is heard.
    await new Promise((resolve) => setImmediate(resolve));
    run.signal.throwIfAborted();
  }
}

async function inProcesses(modules: readonly string[], jobOf: JobOf, run: MergeRun): Promise<void> {
  const { signal, onMerged } = run;
  const processes = Math.min(run.jobs, modules.length);
  const pool = processPool(workerPath(), processes);
  // Shared by all, so that each takes the next when it is done.
  const queue = modules.values();
  const work = async (): Promise<void> => {
    for (const module of queue) {
      signal.throwIfAborted();
      const result: MatrixResult = await pool.run(jobOf(module), { name: 'merge', signal }).catch((cause: unknown) => {
        throw new CommandError(
          'merge-process',
          `The process that merged ${module} failed. When memory is short, give fewer --jobs.`,
          { cause },
        );
      });
      if ('failed' in result) throw revived(result.failed);
      onMerged(result.merged);
    }
  };
  try {
    await Promise.all(Array.from({ length: processes }, work));
  } catch (error) {
    // Interrupted, the processes fail too; that is no news.
    signal.throwIfAborted();
    throw error;
  } finally {
    await pool.destroy();
  }
}

/** The error as it was, but for its class. */
function revived({ code, messages }: FailedMatrix): CommandError {
  const [message = code, ...causes] = messages;
  const cause = causes.reduceRight<Error | undefined>((inner, text) => new Error(text, { cause: inner }), undefined);
  return new CommandError(code, message, { cause });
}

/** Processes run built code, also when this one runs from the sources (tests). Throws CommandError 'merge-process'. */
function workerPath(): string {
  const built = import.meta.url.endsWith('.ts') ? '../../../dist/merge-worker.js' : './merge-worker.js';
  const path = fileURLToPath(new URL(built, import.meta.url));
  if (existsSync(path)) return path;
  throw new CommandError('merge-process', `${path} is missing. Build first: npm run build. Or give --jobs 1.`);
}
