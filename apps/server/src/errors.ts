// What keeps a server from starting or going on. Errors meant for a peer are ProtocolErrors; these are for the operator.

export type ServerErrorCode =
  | 'model-missing-file'
  | 'model-unknown-architecture'
  | 'model-bad-config'
  | 'model-bad-weights'
  | 'model-wrong-shape'
  | 'tasks-missing'
  | 'task-bad-file'
  | 'pages-missing'
  | 'data-dir-locked'
  | 'data-dir-corrupt'
  | 'data-dir-newer'
  | 'data-dir-older'
  | 'data-dir-missing'
  | 'folder-not-empty'
  | 'backup-missing'
  | 'backup-damaged'
  | 'address-in-use'
  | 'bad-option'
  | 'bad-certificate'
  | 'worker-missing'
  | 'file-changed'
  | 'database'
  | 'database-settings'
  | 'bad-webhook'
  | 'bad-log-level';

/** `message` names the file or thing at fault and what to do. */
export class ServerError extends Error {
  override readonly name = 'ServerError';
  readonly code: ServerErrorCode;

  constructor(code: ServerErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** The system's error code, such as ENOENT; undefined for other errors. */
export const systemCode = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
