// Errors as they cross the wire: a stable code for programs, a sentence for people, a time to come back where one helps.
import { z } from 'zod';

/** Every code a peer may receive, with what it means. The table in README.md is checked against this one by a test. */
export const ERROR_CODES = {
  'protocol-version': 'page and server speak different versions of this protocol',
  'bad-message': 'a message does not match its schema',
  'unknown-event': 'no such message',
  'out-of-order': 'a message came before the one it builds on',
  unauthorised: 'the credential is missing or wrong',
  forbidden: 'the role of this account may not do this',
  'unknown-account': 'no account, or no session, of this name',
  'account-exists': 'an account of this name exists already',
  'origin-refused': 'a page of another origin, or a host name that is not the server’s, sent this',
  'invite-required': 'the run takes invited volunteers only',
  'invite-invalid': 'the invite was not made by this server, is damaged, or is for another run',
  'invite-expired': 'the invite’s time is over',
  'invite-used-up': 'the invite has let in as many as it may',
  'invite-revoked': 'the operator has taken the invite back',
  'bad-signature': 'the answer to the challenge does not verify',
  'unknown-run': 'no run of this id',
  'run-not-open': 'the run is not started, is paused or has ended',
  'run-state': 'the command does not fit the state the run is in',
  'bad-settings': 'the settings of a run contradict each other or the model',
  'unknown-task': 'the run has no task of this name',
  'own-data-refused': 'the run does not take own files, or consent is missing',
  'rank-refused': 'the proposed rank is not one of the run’s',
  'unknown-lease': 'no live lease of this id belongs to this client',
  'lease-expired': 'the lease ran out before this message',
  'round-closed': 'the round no longer takes this',
  'upload-run': 'the upload was trained for another run (run hash differs)',
  'upload-start': 'the upload was trained from other start weights (start hash differs)',
  'upload-too-large': 'the upload is larger than the granted factors can be',
  'upload-offset': 'a chunk does not continue where the upload stands',
  'upload-hash': 'the bytes do not have the announced SHA-256',
  'upload-format': 'the blob is not a well-formed safetensors file',
  'upload-shape': 'a tensor is missing, unknown, or has another shape than granted',
  'upload-rank': 'a tensor has another rank than granted, or than pruning leaves',
  'upload-dtype': 'a tensor has another element type than announced',
  'upload-non-finite': 'a tensor holds NaN or infinity',
  'upload-norm': 'the norm of a tensor is beyond any honest update',
  'upload-tokens': 'more tokens are claimed than the grant allows',
  'already-committed': 'the lease has already delivered another upload',
  'unknown-receipt': 'no upload of this receipt, or it is not this client’s',
  'already-merged': 'the merge of the upload’s round has begun, so it cannot be taken back',
  'no-proof': 'the round of this receipt has no signed record: it is still open, or was abandoned',
  banned: 'the operator has banned this client or address',
  'unknown-client': 'no client of this id is known',
  'evaluation-refused': 'no such evaluation job, or the reporter may not evaluate',
  'not-found': 'no such file or page',
  'rate-limited': 'too many messages or bytes at once',
  overloaded: 'the server has more to do than it can in time; come back after `retryAfterMs`',
  'index-away': 'the index of past work cannot be reached now',
  'storage-full': 'the server has no room for this',
  'server-stopping': 'the server is being stopped; come back after the time it names',
  internal: 'the server failed; the message was not acted upon',
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

const codes = Object.keys(ERROR_CODES) as [ErrorCode, ...ErrorCode[]];

export const wireErrorSchema = z.object({
  code: z.enum(codes),
  message: z.string().max(2000),
  retryAfterMs: z.int().nonnegative().optional(),
});
export type WireError = z.infer<typeof wireErrorSchema>;

/** A wire error on its way through a program. `message` names the thing at fault and what to do. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
  readonly code: ErrorCode;
  /** Milliseconds after which trying again makes sense; undefined where it never does. */
  readonly retryAfterMs: number | undefined;

  constructor(code: ErrorCode, message: string, options: { retryAfterMs?: number; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.retryAfterMs = options.retryAfterMs;
  }

  toWire(): WireError {
    const { code, message, retryAfterMs } = this;
    return { code, message: message.slice(0, 2000), ...(retryAfterMs === undefined ? {} : { retryAfterMs }) };
  }

  static fromWire(error: WireError): ProtocolError {
    return new ProtocolError(
      error.code,
      error.message,
      error.retryAfterMs === undefined ? {} : { retryAfterMs: error.retryAfterMs },
    );
  }
}

/** What every acknowledged message is answered with. */
export type Ack<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: WireError };

/** Schema of an acknowledgement whose value matches `value`. */
export function ackSchema<T extends z.ZodType>(value: T): AckSchema<T> {
  const known = madeAcks.get(value) as AckSchema<T> | undefined;
  const schema = known ?? makeAckSchema(value);
  if (!known) madeAcks.set(value, schema);
  return schema;
}

const makeAckSchema = <T extends z.ZodType>(value: T) =>
  z.discriminatedUnion('ok', [
    z.object({ ok: z.literal(true), value }),
    z.object({ ok: z.literal(false), error: wireErrorSchema }),
  ]);
type AckSchema<T extends z.ZodType> = ReturnType<typeof makeAckSchema<T>>;

/** Asked for with every answer, and dearer to make than to use. */
const madeAcks = new WeakMap<z.ZodType, z.ZodType>();

/** Parses `data`, or throws a `bad-message` {@link ProtocolError} that names `what` and the first offending field. */
export function parseMessage<T extends z.ZodType>(schema: T, data: unknown, what: string): z.output<T> {
  const result = schema.safeParse(data);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const field = issue?.path.join('.') || 'the message';
  throw new ProtocolError('bad-message', `${what}: ${field}: ${issue?.message ?? 'does not match'}`, {
    cause: result.error,
  });
}
