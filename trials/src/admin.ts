// The operator of a trial: requests to the /admin namespace, each on a connection of its own, since servers get killed here.
import {
  ADMIN_REQUESTS,
  type AdminRequests,
  ackSchema,
  NAMESPACES,
  PROTOCOL_VERSION,
  ProtocolError,
  type RunSettingsInput,
} from '@weft/protocol';
import { io } from 'socket.io-client';
import type { z } from 'zod';
import { ADMIN_TOKEN } from './server-process.ts';

const ANSWER_MS = 30_000;

/** One request. Rejects with the server's ProtocolError. */
export async function adminRequest<E extends keyof AdminRequests>(
  url: string,
  event: E,
  payload: z.input<AdminRequests[E]['payload']>,
): Promise<z.output<AdminRequests[E]['reply']>> {
  const socket = io(`${url}${NAMESPACES.admin}`, {
    auth: { protocolVersion: PROTOCOL_VERSION, token: ADMIN_TOKEN },
    transports: ['websocket'],
    forceNew: true,
  });
  try {
    const ack = ackSchema(ADMIN_REQUESTS[event].reply).parse(
      await socket.timeout(ANSWER_MS).emitWithAck(event, payload),
    );
    if (!ack.ok) throw ProtocolError.fromWire(ack.error);
    return ack.value as z.output<AdminRequests[E]['reply']>;
  } finally {
    socket.close();
  }
}

/** Creates a run of these settings and starts it; resolves with its id. */
export async function startRun(url: string, settings: Partial<RunSettingsInput>): Promise<string> {
  const { runId } = await adminRequest(url, 'admin:create', {
    name: 'Trial',
    purpose: 'Measure the server.',
    operator: 'the trials',
    tasks: ['rooms'],
    ranks: [1, 2],
    targets: ['q_proj', 'v_proj'],
    evaluate: false,
    rounds: 1,
    ...settings,
  });
  await adminRequest(url, 'admin:start', { runId });
  return runId;
}
