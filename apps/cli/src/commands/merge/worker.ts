// Entry of a merge process: one matrix at a time. Errors that have a code go back as data: of an error, a message between
// processes keeps neither its class nor its causes.
import { systemCode } from '../../disk.ts';
import { type MatrixJob, type MergedMatrix, mergeMatrix } from './matrix-job.ts';

export interface FailedMatrix {
  readonly code: string;
  /** Of the error and its causes, outermost first. */
  readonly messages: readonly string[];
}

export type MatrixResult = { readonly merged: MergedMatrix } | { readonly failed: FailedMatrix };

// Ctrl-C reaches every process of a terminal; the one that started this decides what becomes of it.
process.on('SIGINT', () => {});

const messagesOf = (error: unknown): string[] =>
  error instanceof Error ? [error.message, ...messagesOf(error.cause)] : [];

export function merge(job: MatrixJob): MatrixResult {
  try {
    return { merged: mergeMatrix(job) };
  } catch (error) {
    const code = systemCode(error);
    if (code === undefined) throw error;
    return { failed: { code, messages: messagesOf(error) } };
  }
}
