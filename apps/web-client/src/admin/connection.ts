// The dashboard's socket in the namespace /admin: requests with acknowledgements, notices, and where the line stands.
// Messages of the server are checked against the protocol's schemas before anything draws them. The server refuses a
// wrong token or another protocol version in its answer to the first request, not in the handshake.
import {
  ADMIN_NOTICES,
  ADMIN_REQUESTS,
  type AdminNotices,
  type AdminRequests,
  ackSchema,
  NAMESPACES,
  PROTOCOL_VERSION,
  ProtocolError,
  parseMessage,
} from '@weft/protocol';
import { io, type Socket } from 'socket.io-client';
import type { z } from 'zod';

const ACK_TIMEOUT_MS = 20_000;

export type LineState = 'connecting' | 'connected' | 'away';

export interface AdminListeners {
  onLine(state: LineState): void;
  onNotice<E extends keyof AdminNotices>(event: E, payload: z.output<AdminNotices[E]>): void;
}

export class AdminConnection {
  readonly #socket: Socket;

  constructor(token: string, listeners: AdminListeners) {
    this.#socket = io(NAMESPACES.admin, {
      auth: { protocolVersion: PROTOCOL_VERSION, token },
      transports: ['websocket', 'polling'],
      // Without it a proxy that breaks WebSocket would end here.
      tryAllTransports: true,
    });
    listeners.onLine('connecting');
    this.#socket.on('connect', () => listeners.onLine('connected'));
    this.#socket.on('disconnect', (reason) => {
      listeners.onLine('away');
      // After a hang-up by the server Socket.IO waits to be asked.
      if (reason === 'io server disconnect') this.#socket.connect();
    });
    this.#socket.on('connect_error', () => {
      listeners.onLine('away');
      // A refused handshake leaves the socket inactive; a line that is down is tried again by Socket.IO itself.
      if (!this.#socket.active) this.#socket.connect();
    });
    for (const event of Object.keys(ADMIN_NOTICES) as (keyof AdminNotices)[]) this.#listen(event, listeners);
  }

  #listen<E extends keyof AdminNotices>(event: E, listeners: AdminListeners): void {
    this.#socket.on(event as string, (data: unknown) => {
      listeners.onNotice(event, parseMessage(ADMIN_NOTICES[event], data, event) as z.output<AdminNotices[E]>);
    });
  }

  /** Rejects with the server's ProtocolError, or with an Error when no answer came in time. */
  async request<E extends keyof AdminRequests>(
    event: E,
    payload: z.input<AdminRequests[E]['payload']>,
  ): Promise<z.output<AdminRequests[E]['reply']>> {
    const answer: unknown = await this.#socket.timeout(ACK_TIMEOUT_MS).emitWithAck(event, payload);
    const ack = parseMessage(ackSchema(ADMIN_REQUESTS[event].reply), answer, `reply to ${event}`);
    if (!ack.ok) throw ProtocolError.fromWire(ack.error);
    return ack.value as z.output<AdminRequests[E]['reply']>;
  }

  close(): void {
    this.#socket.close();
  }
}
