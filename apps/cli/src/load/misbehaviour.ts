// What a misbehaving volunteer does on the wire, as a transport around a true one. Everything not named here it does right,
// so that the server meets it where it hurts: in the middle of an upload, with a lease in hand.

import type { RequestName, RequestPayload, RequestReply, Transport } from '@weft/volunteer';
import { TransportError } from '@weft/volunteer';
import type { ManagerOptions, Socket } from 'socket.io-client';
import { CommandError } from '../command.ts';
import type { Misbehaviour } from './plan.ts';

/** How often `reconnect` cuts its line, in milliseconds. */
const RECONNECT_EVERY_MS = 3_000;
/** Requests `slow-reader` has under way without reading an answer, a second. */
const SLOW_READER_REQUESTS = 50;

/** Levers below the messages. */
export interface Wire {
  /** Breaks the connection without a word; the client comes back by itself. */
  cut(): void;
  /** Reads nothing more from the connection, so that not even pings are answered. */
  deafen(): void;
}

/** The levers of a Socket.IO client socket in Node. */
export function wireOf(socket: Socket): Wire {
  return {
    cut: () => void socket.io.engine.close(),
    deafen() {
      const stream = streamOf(socket.io.engine.transport);
      if (!stream)
        throw new CommandError('no-websocket', 'Only a WebSocket can be left unread; use --transport websocket.');
      stream.pause();
    },
  };
}

/** The TCP socket under a WebSocket of the `ws` library, which engine.io-client uses in Node. */
function streamOf(transport: unknown): { pause(): void } | null {
  const field = (from: unknown, name: string): unknown =>
    from !== null && typeof from === 'object' && name in from ? Reflect.get(from, name) : null;
  const stream = field(field(transport, 'ws'), '_socket');
  const pause = field(stream, 'pause');
  return typeof pause === 'function' ? { pause: () => void pause.call(stream) } : null;
}

/** Never settles: what is asked of somebody who does not answer. */
const silence = <T>(): Promise<T> => new Promise<T>(() => undefined);

const WRONG_HASH = 'f'.repeat(64);

/** `transport` with a flaw. Closing it ends the flaw as well. */
export function misbehaving(transport: Transport, kind: Misbehaviour, wire: Wire): Transport {
  let chunks = 0;
  let quiet = false;
  let timer: ReturnType<typeof setInterval> | null = null;
  const stopConnection = transport.onConnection(({ connected }) => {
    if (timer) clearInterval(timer);
    timer = null;
    quiet = false;
    if (connected && kind === 'reconnect') timer = setInterval(() => wire.cut(), RECONNECT_EVERY_MS);
  });
  const send = <E extends RequestName>(event: E, payload: RequestPayload<E>) => transport.request(event, payload);

  async function request<E extends RequestName>(event: E, payload: RequestPayload<E>): Promise<RequestReply<E>> {
    if (quiet) return silence();
    switch (kind) {
      case 'silent':
        // It took the lease and is never heard of again.
        if (event.startsWith('lease:') || event.startsWith('upload:')) return silence();
        break;
      case 'stall':
        if (event === 'upload:chunk' || event === 'upload:commit') return silence();
        break;
      case 'drop':
        // Every other chunk: it must still arrive some day.
        if (event === 'upload:chunk' && chunks++ % 2 === 0) {
          wire.cut();
          throw new TransportError('disconnected', 'The load tool cut its own connection.');
        }
        break;
      case 'wrong-hash':
        if ('sha256' in payload) return send(event, { ...payload, sha256: WRONG_HASH });
        break;
      case 'oversize':
        if ('bytes' in payload && typeof payload.bytes === 'number') {
          return send(event, { ...payload, bytes: 100 * payload.bytes });
        }
        break;
      case 'duplicate':
        if (event === 'upload:commit') return commitThrice(() => send(event, payload));
        break;
      case 'half-open':
      case 'slow-reader':
        if (event === 'lease:heartbeat') {
          wire.deafen();
          quiet = true;
          if (kind === 'slow-reader') timer = setInterval(() => pile(event, payload), 1_000);
          return silence();
        }
        break;
      default:
        break;
    }
    return send(event, payload);
  }

  function pile<E extends RequestName>(event: E, payload: RequestPayload<E>): void {
    for (let i = 0; i < SLOW_READER_REQUESTS; i++) {
      // Nobody reads the answers, least of all this side.
      send(event, payload).catch(() => undefined);
    }
  }

  return {
    request,
    onNotice: (event, listener) => transport.onNotice(event, listener),
    onConnection: (listener) => transport.onConnection(listener),
    close() {
      if (timer) clearInterval(timer);
      stopConnection();
      transport.close();
    },
  };
}

/** The same commit three times at once must have one outcome. */
async function commitThrice<T>(commit: () => Promise<T>): Promise<T> {
  const [first, ...others] = await Promise.all([commit(), commit(), commit()]);
  const same = JSON.stringify(first);
  if (first === undefined || others.some((other) => JSON.stringify(other) !== same)) {
    throw new CommandError('two-receipts', 'One upload committed three times had different receipts.');
  }
  return first;
}

/** Options of a Socket.IO client that reaches the server one way only. */
export const socketOptions = (transport: 'websocket' | 'polling'): Partial<ManagerOptions> => ({
  transports: [transport],
  upgrade: false,
});
