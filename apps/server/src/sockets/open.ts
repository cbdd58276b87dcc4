// The Socket.IO side of a server: both namespaces opened, runs' news passed on, connections let in or refused. What a socket
// may ask is volunteer.ts and admin.ts.
import { MAX_MESSAGE_BYTES, NAMESPACES, ProtocolError } from '@weft/protocol';
import type { FastifyInstance } from 'fastify';
import { type Socket, Server as SocketServer } from 'socket.io';
import type { AlertCenter } from '../alerts/center.ts';
import type { Guard } from '../http/guard.ts';
import type { LiveRun } from '../runs/live-run.ts';
import { serveAdmin, tellAdmins, tellOverview } from './admin.ts';
import { BOUNDED_PARSER } from './parser.ts';
import { toProtocolError } from './serve.ts';
import { Throttle } from './throttle.ts';
import { type SocketDeps, serveVolunteer, tellVolunteers } from './volunteer.ts';

/** A connection that enters no namespace by then is closed, in milliseconds. */
const ENTER_WITHIN_MS = 20_000;
/** Volunteers beyond the limit are told to come back after so many milliseconds, and up to twice as many. */
const FULL_RETRY_MS = 15_000;
/** A refused socket's connection is closed after this many milliseconds, in which the refusal goes out. */
const REFUSED_MS = 1_000;
const NOTICE_EVERY_MS = 500;

/** WebSocket first or long polling, whichever a client's network lets through; both are always open. */
export function openSockets(
  app: FastifyInstance,
  deps: SocketDeps,
  {
    guard,
    alerts,
    maxVolunteers,
  }: { readonly guard: Guard; readonly alerts: AlertCenter; readonly maxVolunteers: number },
): { close(): Promise<void> } {
  const { registry, logger, monotonic, slowReaders } = deps;
  const io = new SocketServer(app.server, {
    serveClient: false,
    maxHttpBufferSize: MAX_MESSAGE_BYTES,
    connectTimeout: ENTER_WITHIN_MS,
    // A compressor a connection costs more memory than everything else of it; factors do not compress.
    perMessageDeflate: false,
    allowRequest: (request, answer) => {
      const { host, origin } = request.headers;
      try {
        guard.checkHost({ host });
        guard.checkOrigin({ host, origin });
        answer(null, true);
      } catch (error) {
        answer(toProtocolError(error).message, false);
      }
    },
    parser: BOUNDED_PARSER,
  });
  io.engine.on('connection', (connection: Socket['conn']) => slowReaders.watch(connection));
  const volunteers = io.of(NAMESPACES.volunteer);
  const admins = io.of(NAMESPACES.admin);
  const onFailure = (error: unknown) => logger.error({ err: error }, 'a notice failed');
  const throttle = new Throttle(NOTICE_EVERY_MS, onFailure);
  const told = new Map<LiveRun, () => void>();
  const tell = () => {
    for (const run of registry.all()) {
      if (told.has(run)) continue;
      const stops = [
        tellVolunteers(volunteers, run, throttle.later, { monotonic, onFailure }),
        tellAdmins(admins, registry, run, throttle.later),
      ];
      told.set(run, () => {
        for (const stop of stops) stop();
      });
    }
  };
  tell();
  registry.onCreated(() => {
    tell();
    tellOverview(admins, registry, throttle.later);
  });
  for (const namespace of [volunteers, admins]) namespace.use(admitConnection(deps));
  volunteers.use((_socket, next) => next(volunteers.sockets.size < maxVolunteers ? undefined : fullHouse()));
  alerts.onNews(() => tellOverview(admins, registry, throttle.later));
  volunteers.on('connection', (socket) => serveVolunteer(socket, deps));
  admins.on('connection', (socket) => serveAdmin(socket, deps));
  return {
    async close() {
      throttle.close();
      for (const stop of told.values()) stop();
      const closed = io.close();
      // It waits for the HTTP server, which waits for connections that browsers keep open for more than a minute.
      app.server.closeAllConnections();
      await closed;
    },
  };
}

/** Counts an address's connections. The refusal reaches Socket.IO clients as `connect_error` with a WireError as `data`. */
function admitConnection({ limits, addressOf: addressOfSocket }: SocketDeps) {
  return (socket: Socket, next: (error?: Error & { data?: unknown }) => void): void => {
    try {
      const leave = limits.connected(addressOfSocket(socket));
      socket.conn.once('close', leave);
      next();
    } catch (error) {
      const told = toProtocolError(error);
      next(Object.assign(new Error(told.message), { data: told.toWire() }));
      setTimeout(() => socket.conn.close(), REFUSED_MS).unref();
    }
  };
}

/** Refusal of a connection to the namespace: Socket.IO passes `data` on to the client. */
function fullHouse(): Error {
  const refusal = new ProtocolError(
    'overloaded',
    'As many volunteers are connected as this server takes; come back later.',
    {
      retryAfterMs: Math.round(FULL_RETRY_MS * (1 + Math.random())),
    },
  );
  return Object.assign(new Error(refusal.message), { data: refusal.toWire() });
}
