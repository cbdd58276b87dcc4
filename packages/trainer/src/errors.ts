// What can go wrong in training, by name. Files and GPUs have errors of their own.

export type TrainerErrorCode =
  | 'no-tokenizer'
  | 'no-chat-template'
  | 'chat-template'
  | 'token-range'
  | 'no-targets'
  | 'no-rank-fits'
  | 'adapter-model'
  | 'rank-mismatch'
  | 'non-finite'
  | 'bad-settings'
  | 'bad-snapshot';

/** `message` says what happened and what to do; `code` is stable. */
export class TrainerError extends Error {
  override readonly name = 'TrainerError';
  readonly code: TrainerErrorCode;

  constructor(code: TrainerErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}
