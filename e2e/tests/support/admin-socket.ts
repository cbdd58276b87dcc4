// The admin's side of the wire without a page, for tests in which no page is what is tested.
import {
  ADMIN_REQUESTS,
  type AdminRequests,
  ackSchema,
  NAMESPACES,
  PROTOCOL_VERSION,
  ProtocolError,
  parseMessage,
} from '@weft/protocol';
import { io, type Socket } from 'socket.io-client';
import type { z } from 'zod';

const ANSWER_MS = 20_000;

export class AdminSocket {
  readonly #socket: Socket;

  constructor(url: string, token: string) {
    this.#socket = io(`${url}${NAMESPACES.admin}`, { auth: { protocolVersion: PROTOCOL_VERSION, token } });
  }

  /** Rejects with the server's ProtocolError. */
  async request<E extends keyof AdminRequests>(
    event: E,
    payload: z.input<AdminRequests[E]['payload']>,
  ): Promise<z.output<AdminRequests[E]['reply']>> {
    const answer: unknown = await this.#socket.timeout(ANSWER_MS).emitWithAck(event, payload);
    const ack = parseMessage(ackSchema(ADMIN_REQUESTS[event].reply), answer, `reply to ${event}`);
    if (!ack.ok) throw ProtocolError.fromWire(ack.error);
    return ack.value as z.output<AdminRequests[E]['reply']>;
  }

  close(): void {
    this.#socket.close();
  }
}
