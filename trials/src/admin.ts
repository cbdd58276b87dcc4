// The operator of a trial, on the admin socket: one that comes back by itself, since servers get killed here.
import { setTimeout as pause } from 'node:timers/promises';
import {
  ADMIN_REQUESTS,
  type AdminRequests,
  ackSchema,
  NAMESPACES,
  PROTOCOL_VERSION,
  ProtocolError,
  type RunSettingsInput,
  type RunSnapshot,
} from '@weft/protocol';
import type { z } from 'zod';
import { Peer } from './peers.ts';
import { ADMIN_TOKEN } from './server-process.ts';

const LOOK_EVERY_MS = 50;

export class Admin extends Peer {
  constructor(url: string) {
    super(`${url}${NAMESPACES.admin}`, {
      auth: { protocolVersion: PROTOCOL_VERSION, token: ADMIN_TOKEN },
      reconnectionDelay: 50,
      reconnectionDelayMax: 200,
    });
  }

  /** Rejects with the server's ProtocolError, or when no answer comes. */
  async request<E extends keyof AdminRequests>(
    event: E,
    payload: z.input<AdminRequests[E]['payload']>,
  ): Promise<z.output<AdminRequests[E]['reply']>> {
    const ack = ackSchema(ADMIN_REQUESTS[event].reply).parse(await this.raw(event, payload));
    if (!ack.ok) throw ProtocolError.fromWire(ack.error);
    return ack.value as z.output<AdminRequests[E]['reply']>;
  }

  /** Looks at the run until it is as `wanted`, for at most `ms`; a line that breaks meanwhile is no matter. */
  async until(runId: string, wanted: (snapshot: RunSnapshot) => boolean, ms = 60_000): Promise<RunSnapshot> {
    const deadline = performance.now() + ms;
    let last = 'nothing was seen of it';
    for (;;) {
      try {
        const snapshot = await this.request('admin:watch', { runId });
        if (wanted(snapshot)) return snapshot;
        last = JSON.stringify(snapshot.round);
      } catch (error) {
        if (error instanceof ProtocolError || performance.now() > deadline) throw error;
      }
      if (performance.now() > deadline) throw new Error(`Run ${runId} did not come so far in ${ms / 1000} s: ${last}`);
      await pause(LOOK_EVERY_MS);
    }
  }
}

/** One request on a connection of its own. Rejects with the server's ProtocolError. */
export async function adminRequest<E extends keyof AdminRequests>(
  url: string,
  event: E,
  payload: z.input<AdminRequests[E]['payload']>,
): Promise<z.output<AdminRequests[E]['reply']>> {
  const admin = new Admin(url);
  try {
    return await admin.request(event, payload);
  } finally {
    admin.close();
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
