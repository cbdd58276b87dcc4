// The namespace /admin: the operator's requests, and snapshots for those who watch a run. A socket whose handshake is
// wrong stays open just long enough to be told so in answer to each request.
import { ADMIN_REQUESTS, adminAuthSchema, type ProtocolError, parseMessage } from '@weft/protocol';
import type { Namespace, Socket } from 'socket.io';
import type { LiveRun } from '../runs/live-run.ts';
import type { Registry } from '../runs/registry.ts';
import { DEFAULT_RATE, RateLimit } from './rate.ts';
import { type Handlers, serveRequests, toProtocolError } from './serve.ts';
import { checkVersion, type SocketDeps } from './volunteer.ts';

/** A socket that may not speak is closed after this many milliseconds. */
const REFUSED_MS = 5_000;

const OPERATORS = 'operators';
const watchRoom = (run: LiveRun): string => `watch:${run.runId}`;

/** Passes a run's news on to those who watch it. Returns a function that stops it. */
export function tellAdmins(
  namespace: Namespace,
  registry: Registry,
  run: LiveRun,
  later: (key: string, work: () => void) => void,
): () => void {
  const watched = () => (namespace.adapter.rooms.get(watchRoom(run))?.size ?? 0) > 0;
  return run.listen({
    granted: () => undefined,
    revoked: () => undefined,
    banned: () => undefined,
    evaluationAvailable: () => undefined,
    changed: () =>
      later(`watch:${run.runId}`, () => {
        if (watched()) namespace.to(watchRoom(run)).emit('run:snapshot', run.snapshot());
      }),
    runChanged: () => tellOverview(namespace, registry, later),
  });
}

export function tellOverview(
  namespace: Namespace,
  registry: Registry,
  later: (key: string, work: () => void) => void,
): void {
  later('overview', () => namespace.to(OPERATORS).emit('admin:overview', registry.overview()));
}

export function serveAdmin(socket: Socket, { registry, auth, logger, monotonic }: SocketDeps): void {
  let refusal: ProtocolError | null = null;
  try {
    checkVersion(socket.handshake.auth);
    auth.check(parseMessage(adminAuthSchema, socket.handshake.auth, 'handshake').token);
  } catch (error) {
    refusal = toProtocolError(error);
  }
  const handlers: Handlers<typeof ADMIN_REQUESTS> = {
    'admin:overview': () => registry.overview(),
    'admin:create': (settings) => registry.create(settings),
    'admin:watch': async ({ runId }) => {
      const run = registry.get(runId);
      for (const room of socket.rooms) if (room.startsWith('watch:')) await socket.leave(room);
      await socket.join(watchRoom(run));
      return run.snapshot();
    },
    'admin:start': ({ runId }) => registry.get(runId).command({ type: 'start' }),
    'admin:pause': ({ runId, reason }) => registry.get(runId).command({ type: 'pause', reason }),
    'admin:close-round': ({ runId, reason }) => registry.get(runId).command({ type: 'close-round', reason }),
    'admin:abort-round': ({ runId, reason }) => registry.get(runId).command({ type: 'abort-round', reason }),
    'admin:extend': ({ runId, reason, ms }) => registry.get(runId).command({ type: 'extend', ms, reason }),
    'admin:stop': ({ runId, reason }) => registry.get(runId).command({ type: 'stop', reason }),
    'admin:bans': () => ({ bans: registry.bans.all() }),
    'admin:ban': (wish) => {
      registry.ban(wish);
      return { bans: registry.bans.all() };
    },
    'admin:unban': ({ clientId }) => {
      registry.unban(clientId);
      return { bans: registry.bans.all() };
    },
  };
  serveRequests(socket, ADMIN_REQUESTS, handlers, {
    rate: new RateLimit(DEFAULT_RATE, monotonic),
    before: () => {
      if (refusal) throw refusal;
    },
    onFailure: (event, error) => logger.error({ err: error, event }, 'an operator’s message failed'),
  });
  if (refusal) {
    const timer = setTimeout(() => socket.disconnect(true), REFUSED_MS);
    socket.on('disconnect', () => clearTimeout(timer));
    return;
  }
  void socket.join(OPERATORS);
}
