// One socket's requests: rate, name, schema, then the handler; every one answered with an Ack. Knows no message by name.
import { type Ack, ProtocolError, parseMessage } from '@weft/protocol';
import type { Socket } from 'socket.io';
import type { z } from 'zod';
import { checkShape } from '../sizes.ts';
import type { RateLimit } from './rate.ts';

export interface Request {
  readonly payload: z.ZodType;
  readonly reply: z.ZodType;
}
export type Requests = Readonly<Record<string, Request>>;

export type Handlers<R extends Requests> = {
  readonly [E in keyof R]: (
    payload: z.output<R[E]['payload']>,
  ) => z.output<R[E]['reply']> | Promise<z.output<R[E]['reply']>>;
};

export interface ServeOptions {
  readonly rate: RateLimit;
  /** Looks at a raw payload before its schema does, such as for the protocol's version. Throws to refuse. */
  readonly before?: (event: string, payload: unknown) => void;
  /** Told of failures that are the server's own. */
  readonly onFailure: (event: unknown, error: unknown) => void;
  /** Told of every answer: the error's code or null, milliseconds since the message, its bytes. */
  readonly answered?: (event: string, code: string | null, ms: number, bytes: number) => void;
}

/** Requests one socket may have unanswered; what waits for merges, disks and checks is bounded by it. */
const MOST_UNANSWERED = 64;

type Reply = (ack: Ack<unknown>) => void;

const isReply = (value: unknown): value is Reply => typeof value === 'function';

/** Bytes of a message that count against the sender: binary parts and strings at the first level. */
function sizeOf(payload: unknown): number {
  if (payload === null || typeof payload !== 'object') return 0;
  return Object.values(payload).reduce<number>((sum, value) => {
    if (value instanceof Uint8Array) return sum + value.byteLength;
    return sum + (typeof value === 'string' ? value.length : 0);
  }, 0);
}

/** Answers every message of `socket` until it disconnects. */
export function serveRequests<R extends Requests>(
  socket: Socket,
  requests: R,
  handlers: Handlers<R>,
  options: ServeOptions,
): void {
  let unanswered = 0;
  const answer = async (event: unknown, payload: unknown): Promise<unknown> => {
    options.rate.take(sizeOf(payload));
    if (typeof event !== 'string') throw new ProtocolError('unknown-event', 'A message begins with its name.');
    if (unanswered > MOST_UNANSWERED) {
      throw new ProtocolError('rate-limited', `At most ${MOST_UNANSWERED} requests may wait for their answers.`, {
        retryAfterMs: 500,
      });
    }
    const request = Object.hasOwn(requests, event) ? requests[event] : undefined;
    const handler = handlers[event];
    if (!request || !handler) {
      throw new ProtocolError('unknown-event', `The server knows no message "${event.slice(0, 60)}".`);
    }
    options.before?.(event, payload);
    checkShape(payload);
    return handler(parseMessage(request.payload, payload, event) as z.output<R[string]['payload']>);
  };
  socket.onAny((event: unknown, ...args: unknown[]) => {
    const last = args.at(-1);
    const reply = isReply(last) ? last : null;
    const payload = isReply(args[0]) ? undefined : args[0];
    const startedAt = performance.now();
    const answered = (code: string | null) =>
      options.answered?.(
        typeof event === 'string' ? event : 'no name',
        code,
        performance.now() - startedAt,
        sizeOf(payload),
      );
    unanswered += 1;
    answer(event, payload).then(
      (value) => {
        unanswered -= 1;
        reply?.({ ok: true, value });
        answered(null);
      },
      (error: unknown) => {
        unanswered -= 1;
        if (!(error instanceof ProtocolError) || error.code === 'internal') options.onFailure(event, error);
        const told = toProtocolError(error);
        reply?.({ ok: false, error: told.toWire() });
        answered(told.code);
      },
    );
  });
}

/** What a peer is told of any error: its own faults by name, the server's as 'internal'. */
export function toProtocolError(error: unknown): ProtocolError {
  if (error instanceof ProtocolError) return error;
  return new ProtocolError('internal', 'The server failed at this message and did not act on it. Try again shortly.', {
    retryAfterMs: 5_000,
    cause: error,
  });
}
