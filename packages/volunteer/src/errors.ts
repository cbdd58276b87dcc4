// What can go wrong with a session besides what the server says (ProtocolError) and what the trainer says. Every message
// tells what happened, what was kept and what to do; the code is for programs and for the page's "details".

export type TransportErrorCode =
  /** The line is down or broke before the answer came. */
  | 'disconnected'
  /** No answer within the time allowed. */
  | 'timeout'
  /** The transport was closed on this side. */
  | 'closed'
  /** A download broke off or its answer was not usable. */
  | 'network';

/** The way to the server failed; the message may or may not have arrived. */
export class TransportError extends Error {
  override readonly name = 'TransportError';
  readonly code: TransportErrorCode;

  constructor(code: TransportErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

export type StorageErrorCode = 'storage-full' | 'storage-unavailable' | 'storage-failed';

/** The place where downloaded pieces are kept refused. */
export class StorageError extends Error {
  override readonly name = 'StorageError';
  readonly code: StorageErrorCode;

  constructor(code: StorageErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

export type SessionErrorCode =
  | 'identity'
  | 'receipt'
  | 'run-changed'
  | 'manifest-hash'
  | 'run-hash'
  | 'piece-hash'
  | 'start-hash'
  | 'start-rank'
  | 'update-rank'
  | 'missing-file'
  | 'diverged'
  | 'device-lost'
  | 'out-of-memory'
  | 'closed';

/** The session itself found something that must not go on. */
export class SessionError extends Error {
  override readonly name = 'SessionError';
  readonly code: SessionErrorCode;

  constructor(code: SessionErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** The stable code of any error, 'internal' where it has none. */
export function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'internal';
}

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
