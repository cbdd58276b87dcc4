// The merger as child processes: their memory and their stalls are not the server's, and a crash is an error of one job.
import { randomUUID } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Agreement, sumAgreements } from '@weft/flexlora';
import { readSafetensors, type TensorToWrite, toFloat64, writeSafetensors } from '@weft/formats';
import type { Tinypool } from 'tinypool';
import type { Matrix } from '../runs/grants.ts';
import { workerPath } from '../worker-path.ts';
import type { Change, MergeJob, MergeResult, Merger, ReadOutJob, UploadFiles, WeightedUpload } from './merger.ts';
import { defaultProcesses, processPool } from './processes.ts';
import type { AgreementTask, ChangeTask, MergeTask, MergeTaskResult, ReadOutTask } from './worker.ts';

export class WorkerMerger implements Merger {
  readonly #workers: number;
  readonly #folder: string;
  #pool: Tinypool | null = null;

  /** `folder`: for results on their way; emptied. `workers`: by default {@link defaultProcesses}. */
  constructor(folder: string, workers = defaultProcesses()) {
    this.#workers = workers;
    this.#folder = folder;
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    // Found missing here, it keeps the server from starting; found missing later, it would cost a round.
    workerPath('merge-worker');
  }

  #run<Task, Result>(name: 'readOut' | 'change' | 'agreement' | 'mergeMatrices', task: Task): Promise<Result> {
    this.#pool ??= processPool(workerPath('merge-worker'), this.#workers);
    return this.#pool.run(task, { name }).catch((error: unknown) => {
      throw asError(error);
    }) as Promise<Result>;
  }

  /** Jobs that no process has taken yet. */
  get waiting(): number {
    return this.#pool?.queueSize ?? 0;
  }

  async readOut(job: ReadOutJob): Promise<Uint8Array> {
    return this.#withOutput(async (output) => {
      await this.#run<ReadOutTask, void>('readOut', { ...job, output });
      return readFileSync(output);
    });
  }

  changes(uploads: readonly UploadFiles[], matrices: readonly Matrix[]): Promise<Change[]> {
    return Promise.all(uploads.map((upload) => this.#run<ChangeTask, Change>('change', { upload, matrices })));
  }

  async agreement(uploads: readonly WeightedUpload[], matrices: readonly Matrix[]): Promise<Agreement> {
    const parts = split(matrices, this.#workers).map((part) =>
      this.#run<AgreementTask, Agreement>('agreement', { uploads, matrices: part }),
    );
    return sumAgreements(await Promise.all(parts));
  }

  async merge(job: MergeJob): Promise<MergeResult> {
    const parts = await Promise.all(
      split(job.matrices, this.#workers).map((matrices) =>
        this.#withOutput(async (output) => {
          const { spectra, agreement } = await this.#run<MergeTask, MergeTaskResult>('mergeMatrices', {
            ...job,
            matrices,
            output,
          });
          return { spectra, agreement, bytes: readFileSync(output) };
        }),
      ),
    );
    const tensors = parts.flatMap(({ bytes }) =>
      [...readSafetensors(bytes, 'a merged part').tensors].map<TensorToWrite>(([name, tensor]) => ({
        name,
        dtype: 'F64',
        shape: tensor.shape,
        data: toFloat64(tensor, name),
      })),
    );
    return {
      state: writeSafetensors(tensors),
      spectra: parts.flatMap((part) => part.spectra),
      agreement: sumAgreements(parts.map((part) => part.agreement)),
    };
  }

  async #withOutput<T>(work: (output: string) => Promise<T>): Promise<T> {
    // A worker of a killed server may still be writing: names must never come twice.
    const output = join(this.#folder, `${randomUUID()}.safetensors`);
    try {
      return await work(output);
    } finally {
      rmSync(output, { force: true });
    }
  }

  async close(): Promise<void> {
    await this.#pool?.destroy();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** A child process's error arrives as its fields alone. */
function asError(error: unknown): Error {
  if (error instanceof Error) return error;
  const fields = error !== null && typeof error === 'object' ? error : {};
  const message = 'message' in fields ? String(fields.message) : String(error);
  return Object.assign(new Error(message), 'code' in fields ? { code: fields.code } : {}, { cause: error });
}

/** Consecutive parts of nearly equal length. */
function split<T>(items: readonly T[], parts: number): T[][] {
  const size = Math.max(1, Math.ceil(items.length / parts));
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size));
}
