// The protocol over a Socket.IO client socket, which is passed in: the tab and the command line bring their own. Replies
// and notices are checked against their schemas here, so nothing behind this line handles unchecked data.
import {
  ackSchema,
  ProtocolError,
  parseMessage,
  VOLUNTEER_NOTICES,
  VOLUNTEER_REQUESTS,
  wireErrorSchema,
} from '@weft/protocol';
import { backoffMs } from './clock.ts';
import { messageOf, TransportError } from './errors.ts';
import type {
  Clock,
  NoticeName,
  NoticePayload,
  RequestName,
  RequestPayload,
  RequestReply,
  Transport,
} from './ports.ts';

/** As much of socket.io-client's Socket as is used. */
export interface SocketLike {
  readonly connected: boolean;
  /** Whether the socket reconnects by itself now. */
  readonly active: boolean;
  on(event: string, listener: (...args: unknown[]) => void): unknown;
  off(event: string, listener: (...args: unknown[]) => void): unknown;
  timeout(ms: number): { emitWithAck(event: string, payload: unknown): Promise<unknown> };
  connect(): unknown;
  disconnect(): unknown;
}

export interface SocketTransportOptions {
  readonly clock: Clock;
  /** Told of notices that do not match their schema; they are not passed on. */
  readonly onInvalidNotice: (error: ProtocolError) => void;
  /** Time a reply may take, in milliseconds. */
  readonly ackTimeoutMs?: number;
  readonly random?: () => number;
}

const ACK_TIMEOUT_MS = 20_000;

/**
 * How a Socket.IO client is to come back after a broken line: doubling up to 10 s, each wait off by up to a half, so that
 * thousands who lost the server together do not return together. Spread into the options of `io(…)`.
 */
export const RECONNECTION = {
  reconnectionDelay: 1_000,
  reconnectionDelayMax: 10_000,
  randomizationFactor: 0.5,
} as const;

/** A connection that held this long counts as one: waits between attempts start short again after it. */
const SETTLED_MS = 10_000;

/** The time a server that refused a connection asks for; 0 where it asks for none. */
function retryAfterOf(error: unknown): number {
  const refusal = wireErrorSchema.safeParse(error instanceof Error && 'data' in error ? error.data : null);
  return refusal.success ? (refusal.data.retryAfterMs ?? 0) : 0;
}

/** A transport on a socket of the volunteers' namespace (`${url}/volunteer`). Closing it disconnects the socket. */
export function socketTransport(socket: SocketLike, options: SocketTransportOptions): Transport {
  const { clock, onInvalidNotice, ackTimeoutMs = ACK_TIMEOUT_MS, random = Math.random } = options;
  const listeners = new Set<(state: { connected: boolean; reason: string | null }) => void>();
  const subscriptions: (() => void)[] = [];
  let closed = false;
  let attempts = 0;
  let connectedAt = 0;
  let cancelReconnect: (() => void) | null = null;

  const tell = (connected: boolean, reason: string | null) => {
    for (const listener of [...listeners]) listener({ connected, reason });
  };
  // Socket.IO comes back by itself after a broken line, not after the server hung up or refused the handshake.
  const reconnectIfLeftAlone = (askedMs = 0) => {
    if (closed || socket.active || cancelReconnect) return;
    cancelReconnect = clock.after(Math.max(askedMs, backoffMs(attempts++, random)), () => {
      cancelReconnect = null;
      if (!closed) socket.connect();
    });
  };
  const listen = (event: string, listener: (...args: unknown[]) => void): (() => void) => {
    socket.on(event, listener);
    return () => socket.off(event, listener);
  };
  subscriptions.push(
    listen('connect', () => {
      connectedAt = clock.now();
      tell(true, null);
    }),
    listen('disconnect', (reason) => {
      // A server that hangs up at once, again and again, is not to be asked once a second.
      if (clock.now() - connectedAt >= SETTLED_MS) attempts = 0;
      tell(false, String(reason));
      reconnectIfLeftAlone();
    }),
    listen('connect_error', (error) => {
      tell(false, messageOf(error));
      reconnectIfLeftAlone(retryAfterOf(error));
    }),
  );

  return {
    async request<E extends RequestName>(event: E, payload: RequestPayload<E>): Promise<RequestReply<E>> {
      if (closed) throw new TransportError('closed', 'The connection was closed on this side.');
      // Without this check Socket.IO would keep the message and send it later, out of its order.
      if (!socket.connected) throw new TransportError('disconnected', 'The connection to the server is down.');
      let answer: unknown;
      try {
        answer = await socket.timeout(ackTimeoutMs).emitWithAck(event, payload);
      } catch (cause) {
        if (closed) throw new TransportError('closed', 'The connection was closed on this side.', { cause });
        if (!socket.connected) {
          throw new TransportError('disconnected', `The connection broke before "${event}" was answered.`, { cause });
        }
        throw new TransportError('timeout', `"${event}" was not answered within ${ackTimeoutMs / 1000} s.`, { cause });
      }
      const ack = parseMessage(ackSchema(VOLUNTEER_REQUESTS[event].reply), answer, `reply to ${event}`);
      if (!ack.ok) throw ProtocolError.fromWire(ack.error);
      return ack.value as RequestReply<E>;
    },
    onNotice<E extends NoticeName>(event: E, listener: (payload: NoticePayload<E>) => void): () => void {
      return listen(event, (data) => {
        let payload: NoticePayload<E>;
        try {
          payload = parseMessage(VOLUNTEER_NOTICES[event], data, event) as NoticePayload<E>;
        } catch (error) {
          if (!(error instanceof ProtocolError)) throw error;
          onInvalidNotice(error);
          return;
        }
        listener(payload);
      });
    },
    onConnection(listener) {
      listeners.add(listener);
      if (socket.connected) listener({ connected: true, reason: null });
      return () => listeners.delete(listener);
    },
    close() {
      closed = true;
      cancelReconnect?.();
      for (const unsubscribe of subscriptions) unsubscribe();
      socket.disconnect();
    },
  };
}
