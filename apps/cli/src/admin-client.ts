// The command line as an admin: the requests and notices of the /admin namespace over one socket.
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

export class AdminClient {
  readonly #socket: Socket;

  private constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Connects and signs in. Rejects with the server's ProtocolError, such as 'unauthorised'. */
  static async connect(url: string, token: string): Promise<AdminClient> {
    const socket = io(`${url}${NAMESPACES.admin}`, { auth: { protocolVersion: PROTOCOL_VERSION, token } });
    const client = new AdminClient(socket);
    try {
      await client.request('admin:overview', {});
    } catch (error) {
      socket.close();
      throw error;
    }
    return client;
  }

  async request<E extends keyof AdminRequests>(
    event: E,
    payload: z.input<AdminRequests[E]['payload']>,
  ): Promise<z.output<AdminRequests[E]['reply']>> {
    const answer: unknown = await this.#socket.timeout(ACK_TIMEOUT_MS).emitWithAck(event, payload);
    const ack = parseMessage(ackSchema(ADMIN_REQUESTS[event].reply), answer, `reply to ${event}`);
    if (!ack.ok) throw ProtocolError.fromWire(ack.error);
    return ack.value as z.output<AdminRequests[E]['reply']>;
  }

  /** Returns a function that stops listening. */
  onNotice<E extends keyof AdminNotices>(event: E, listener: (payload: z.output<AdminNotices[E]>) => void): () => void {
    const handle = (data: unknown) =>
      listener(parseMessage(ADMIN_NOTICES[event], data, event) as z.output<AdminNotices[E]>);
    this.#socket.on(event as string, handle);
    return () => this.#socket.off(event as string, handle);
  }

  close(): void {
    this.#socket.close();
  }
}
