// What can be wrong with a file, by name.

export type FormatErrorCode =
  | 'safetensors-header'
  | 'safetensors-truncated'
  | 'safetensors-tensor'
  | 'adapter-config'
  | 'adapter-tensor'
  | 'adapter-missing'
  | 'model-config'
  | 'model-index'
  | 'model-missing'
  | 'model-shape'
  | 'model-tensor'
  | 'unsupported-architecture'
  | 'data-columns'
  | 'data-line'
  | 'data-empty';

/** `message` names the file's part at fault and the remedy. */
export class FormatError extends Error {
  override readonly name = 'FormatError';
  readonly code: FormatErrorCode;

  constructor(code: FormatErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** The error for a model the trainer cannot compute; `what` begins the sentence. */
export const unsupportedModel = (what: string): FormatError =>
  new FormatError(
    'unsupported-architecture',
    `${what} is not supported. Use a Llama, Mistral, Qwen2 or Qwen3 checkpoint without it.`,
  );
