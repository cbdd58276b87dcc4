// The namespace /admin: the operator's requests, and snapshots for those who watch a run. A socket whose handshake is
// wrong stays open just long enough to be told so in answer to each request.
import { type Actor, ADMIN_REQUESTS, adminAuthSchema, ProtocolError, parseMessage } from '@weft/protocol';
import type { Logger } from 'pino';
import type { Namespace, Socket } from 'socket.io';
import { asSentence } from '../coordinator/derive.ts';
import type { LiveRun } from '../runs/live-run.ts';
import type { Registry } from '../runs/registry.ts';
import { DEFAULT_RATE, RateLimit } from './rate.ts';
import { type Handlers, serveRequests, toProtocolError } from './serve.ts';
import { UNREAD_OPERATOR_BYTES } from './slow-readers.ts';
import { checkVersion, type SocketDeps } from './volunteer.ts';

/** A socket that may not speak is closed after this many milliseconds. */
const REFUSED_MS = 5_000;

/** How often an open socket's session is looked at, in milliseconds; one that was revoked is looked at once. */
const LOOK_EVERY_MS = 15_000;

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

/** What was done, in the words of the run's story; other commands are named as they are sent. */
const DEEDS: Partial<Record<keyof typeof ADMIN_REQUESTS, string>> = {
  'admin:create': 'created the run',
  'admin:start': 'started the run',
  'admin:pause': 'paused the run',
  'admin:close-round': 'closed the round',
  'admin:stop': 'stopped the run',
  'admin:abort-round': 'aborted the round',
  'admin:extend': 'extended the round',
};

const runIdOf = (value: unknown): string | null =>
  value !== null && typeof value === 'object' && 'runId' in value && typeof value.runId === 'string'
    ? value.runId
    : null;

const reasonOf = (value: unknown): string | null =>
  value !== null && typeof value === 'object' && 'reason' in value && typeof value.reason === 'string'
    ? value.reason
    : null;

/** Who did what: in the server's log, and in the story of the run it was done to. */
function record(
  event: keyof typeof ADMIN_REQUESTS,
  by: Actor,
  runId: string | null,
  parts: { registry: Registry; logger: Logger; reason: string | null },
): void {
  parts.logger.info({ event, by: by.name, role: by.role, session: by.sessionId, run: runId }, 'an admin’s command');
  if (runId === null || event.startsWith('admin:invite')) return;
  const deed = `${by.name} ${DEEDS[event] ?? `asked for ${event.replace('admin:', '')}`}`;
  parts.registry.get(runId).log('info', asSentence(parts.reason ? `${deed}: ${parts.reason}` : deed));
}

/** Every command of an operator or owner, recorded once it is carried out. */
function recorded(
  handlers: Handlers<typeof ADMIN_REQUESTS>,
  actor: () => Actor,
  parts: { registry: Registry; logger: Logger },
): Handlers<typeof ADMIN_REQUESTS> {
  const events = Object.keys(handlers) as (keyof typeof ADMIN_REQUESTS)[];
  const entries = events.map((event) => {
    const handler = handlers[event] as (payload: unknown) => unknown;
    if (ADMIN_REQUESTS[event].role === 'viewer' || event === 'admin:accounts' || event === 'admin:sessions') {
      return [event, handler];
    }
    const work = async (payload: unknown): Promise<unknown> => {
      // Before the work: a command may end the rights of whoever gave it.
      const by = actor();
      const reply = await handler(payload);
      record(event, by, runIdOf(payload) ?? runIdOf(reply), { ...parts, reason: reasonOf(payload) });
      return reply;
    };
    return [event, work];
  });
  return Object.fromEntries(entries) as Handlers<typeof ADMIN_REQUESTS>;
}

export function serveAdmin(socket: Socket, deps: SocketDeps): void {
  const { registry, access, invites, logger, monotonic, slowReaders } = deps;
  let refusal: ProtocolError | null = null;
  let credential = '';
  try {
    checkVersion(socket.handshake.auth);
    credential = parseMessage(adminAuthSchema, socket.handshake.auth, 'handshake').token;
    access.check(credential, 'viewer');
  } catch (error) {
    refusal = toProtocolError(error);
  }
  const close = () => socket.disconnect(true);
  /** Looked up at every message: a session may have ended, a role changed. */
  let actor: Actor | null = null;
  const current = (): Actor => {
    if (!actor) throw new ProtocolError('unauthorised', 'Sign in first.');
    return actor;
  };
  const handlers: Handlers<typeof ADMIN_REQUESTS> = {
    'admin:overview': () => registry.overview(),
    'admin:create': (settings) => registry.create(settings),
    'admin:watch': async ({ runId }) => {
      const run = registry.get(runId);
      for (const room of socket.rooms) if (room.startsWith('watch:')) await socket.leave(room);
      await socket.join(watchRoom(run));
      return run.snapshot();
    },
    'admin:clients': (query) => registry.get(query.runId).clients(query),
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
    'admin:whoami': () => current(),
    'admin:invite-create': (wish) => {
      if (wish.runId !== null) registry.get(wish.runId);
      return invites.create(wish, current().name);
    },
    'admin:invites': () => ({ invites: invites.all() }),
    'admin:invite-revoke': ({ inviteId }) => invites.revoke(inviteId),
    'admin:accounts': () => ({ accounts: access.accounts() }),
    'admin:account-add': ({ name, role, password }) => access.addAccount(name, role, password),
    'admin:account-remove': ({ name }) => {
      access.removeAccount(name);
      return {};
    },
    'admin:account-role': ({ name, role }) => access.setRole(name, role),
    'admin:account-password': ({ name, password }) => access.setPassword(name, password),
    'admin:sessions': () => ({ sessions: access.sessions(current()) }),
    'admin:session-revoke': ({ sessionId, account }) => {
      if (sessionId !== null && account === null) return { ended: access.endSessions({ sessionId }) };
      if (account !== null && sessionId === null) return { ended: access.endSessions({ account }) };
      throw new ProtocolError('bad-message', 'admin:session-revoke: give a sessionId or an account, the other null.');
    },
    'admin:new-token': () => ({ token: access.newAdminToken() }),
  };
  const refuseAndClose = (error: ProtocolError): never => {
    refusal = error;
    // After the answer has gone out.
    setTimeout(close, 100);
    throw error;
  };
  serveRequests(socket, ADMIN_REQUESTS, recorded(handlers, current, { registry, logger }), {
    rate: new RateLimit(DEFAULT_RATE, monotonic),
    before: (event) => {
      if (refusal) throw refusal;
      const { role } = ADMIN_REQUESTS[event as keyof typeof ADMIN_REQUESTS];
      try {
        actor = access.check(credential, role);
      } catch (error) {
        const told = toProtocolError(error);
        if (told.code === 'unauthorised') refuseAndClose(told);
        throw told;
      }
    },
    onFailure: (event, error) => logger.error({ err: error, event }, 'an operator’s message failed'),
  });
  if (refusal) {
    const timer = setTimeout(close, REFUSED_MS);
    socket.on('disconnect', () => clearTimeout(timer));
    return;
  }
  slowReaders.allow(socket.conn, UNREAD_OPERATOR_BYTES);
  // Who only listens must stop hearing too.
  const look = () => {
    if (access.find(credential) === null) close();
  };
  const timer = setInterval(look, LOOK_EVERY_MS);
  // Later, so that whoever ended its own session still gets its answer.
  const forget = access.onChange(() => setTimeout(look, 100));
  socket.on('disconnect', () => {
    clearInterval(timer);
    forget();
  });
  void socket.join(OPERATORS);
}
