// The operator by script, over the admin socket; it asks again until the server is there to answer.
import { setTimeout as pause } from 'node:timers/promises';
import {
  ADMIN_REQUESTS,
  type AdminRequests,
  ackSchema,
  NAMESPACES,
  PROTOCOL_VERSION,
  ProtocolError,
} from '@weft/protocol';
import { io, type Socket } from 'socket.io-client';
import type { z } from 'zod';

const ANSWER_MS = 3_000;

export class ScriptedAdmin {
  readonly #socket: Socket;

  constructor(url: string, token: string) {
    this.#socket = io(`${url}${NAMESPACES.admin}`, {
      auth: { protocolVersion: PROTOCOL_VERSION, token },
      transports: ['websocket'],
      forceNew: true,
      reconnectionDelay: 50,
      reconnectionDelayMax: 200,
    });
  }

  /** Throws the ProtocolError the server answers with. */
  async request<E extends keyof AdminRequests>(
    event: E,
    payload: z.input<AdminRequests[E]['payload']>,
  ): Promise<z.output<AdminRequests[E]['reply']>> {
    const answer: unknown = await this.#socket.timeout(ANSWER_MS).emitWithAck(event, payload);
    const ack = ackSchema(ADMIN_REQUESTS[event].reply).parse(answer);
    if (!ack.ok) throw ProtocolError.fromWire(ack.error);
    return ack.value as z.output<AdminRequests[E]['reply']>;
  }

  /** Looks at the run until it is as `wanted`, for at most `ms`. */
  async until(
    runId: string,
    wanted: (snapshot: z.output<AdminRequests['admin:watch']['reply']>) => boolean,
    ms: number,
  ): Promise<z.output<AdminRequests['admin:watch']['reply']>> {
    const deadline = performance.now() + ms;
    for (;;) {
      try {
        const snapshot = await this.request('admin:watch', { runId });
        if (wanted(snapshot)) return snapshot;
      } catch (error) {
        // The line may have broken with a server that was killed just now.
        if (error instanceof ProtocolError || performance.now() > deadline) throw error;
      }
      if (performance.now() > deadline) throw new Error(`The run did not come so far within ${ms} ms.`);
      await pause(50);
    }
  }

  close(): void {
    this.#socket.close();
  }
}
