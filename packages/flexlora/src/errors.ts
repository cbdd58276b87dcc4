// What can be wrong with a merge, by name.

export type MergeErrorCode =
  | 'shape'
  | 'rank'
  | 'non-finite'
  | 'weights'
  | 'strategy'
  | 'unknown-strategy'
  | 'modules'
  | 'no-convergence';

/** `message` names the matrix or adapter at fault and the remedy. */
export class MergeError extends Error {
  override readonly name = 'MergeError';
  readonly code: MergeErrorCode;

  constructor(code: MergeErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}
