// What can go wrong on a GPU, by name.

export type GpuErrorCode =
  | 'no-webgpu'
  | 'insecure-context'
  | 'no-adapter'
  | 'device-lost'
  | 'out-of-memory'
  | 'shader'
  | 'validation'
  | 'shape'
  /** A weight that is no finite number, or too large for the type it is kept in. */
  | 'weight-value';

/** `message` says what happened and what to do; `code` is stable. */
export class GpuError extends Error {
  override readonly name = 'GpuError';
  readonly code: GpuErrorCode;

  constructor(code: GpuErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}
