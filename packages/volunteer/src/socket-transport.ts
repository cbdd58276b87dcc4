// The protocol over a Socket.IO client socket, which is passed in: the tab and the command line bring their own. Replies
// and notices are checked against their schemas here, so nothing behind this line handles unchecked data.
import { ackSchema, ProtocolError, parseMessage, VOLUNTEER_NOTICES, VOLUNTEER_REQUESTS } from '@weft/protocol';
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

/** A transport on a socket of the volunteers' namespace (`${url}/volunteer`). Closing it disconnects the socket. */
export function socketTransport(socket: SocketLike, options: SocketTransportOptions): Transport {
  const { clock, onInvalidNotice, ackTimeoutMs = ACK_TIMEOUT_MS, random = Math.random } = options;
  const listeners = new Set<(state: { connected: boolean; reason: string | null }) => void>();
  const subscriptions: (() => void)[] = [];
  let closed = false;
  let attempts = 0;
  let cancelReconnect: (() => void) | null = null;

  const tell = (connected: boolean, reason: string | null) => {
    for (const listener of [...listeners]) listener({ connected, reason });
  };
  // Socket.IO comes back by itself after a broken line, not after the server hung up or refused the handshake.
  const reconnectIfLeftAlone = () => {
    if (closed || socket.active || cancelReconnect) return;
    cancelReconnect = clock.after(backoffMs(attempts++, random), () => {
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
      attempts = 0;
      tell(true, null);
    }),
    listen('disconnect', (reason) => {
      tell(false, String(reason));
      reconnectIfLeftAlone();
    }),
    listen('connect_error', (error) => {
      tell(false, messageOf(error));
      reconnectIfLeftAlone();
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
