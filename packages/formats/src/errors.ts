// What can be wrong with a file, by name.

export type FormatErrorCode =
  | 'safetensors-header'
  | 'safetensors-truncated'
  | 'safetensors-tensor'
  | 'adapter-config'
  | 'adapter-tensor'
  | 'adapter-missing'
  | 'model-config'
  | 'model-missing'
  | 'model-tensor'
  | 'unsupported-architecture'
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
