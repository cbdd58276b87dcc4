// The namespace /volunteer: who is there, by key; then that client's requests to its run.
import {
  MAX_CHUNKS_IN_FLIGHT,
  PROTOCOL_VERSION,
  ProtocolError,
  VOLUNTEER_REQUESTS,
  type VolunteerNotices,
} from '@weft/protocol';
import type { Logger } from 'pino';
import type { Namespace, Socket } from 'socket.io';
import type { z } from 'zod';
import type { Access } from '../auth/access.ts';
import { checkSignature, clientIdOf, makeChallenge } from '../auth/client-key.ts';
import type { Invites } from '../auth/invites.ts';
import type { PeerLimits } from '../auth/limits.ts';
import type { AnswerMeter } from '../http/metrics.ts';
import type { LiveRun } from '../runs/live-run.ts';
import type { Registry } from '../runs/registry.ts';
import type { Pressure } from './pressure.ts';
import { DEFAULT_RATE, RateLimit } from './rate.ts';
import { RoundNews } from './round-news.ts';
import { type Handlers, serveRequests } from './serve.ts';
import type { SlowReaders } from './slow-readers.ts';
import { DEFAULT_SWEEP, Sweep } from './sweep.ts';

/** Chunks a socket may have unanswered: what the protocol allows, and as many again for a client that resends. */
const CHUNKS_HELD = 2 * MAX_CHUNKS_IN_FLIGHT;

/** A socket of a banned client is closed after this many milliseconds. */
const BANNED_MS = 5_000;
/** A volunteer's socket that has not proved who it is by then is closed, in milliseconds: longer than anybody is told to wait. */
const PROVE_WITHIN_MS = 120_000;
/** Answers to challenges a socket may get wrong. */
const MOST_BAD_SIGNATURES = 3;

export interface SocketDeps {
  readonly registry: Registry;
  readonly access: Access;
  readonly invites: Invites;
  readonly limits: PeerLimits;
  /** A socket's address, behind trusted proxies the real one. */
  readonly addressOf: (socket: Socket) => string;
  readonly logger: Logger;
  /** Counts one volunteer's messages; `run` once it is known. */
  readonly meter: (run: () => string | undefined) => AnswerMeter;
  readonly monotonic: () => number;
  readonly pressure: Pressure;
  readonly slowReaders: SlowReaders;
}

interface Greeted {
  readonly run: LiveRun;
  readonly name: string | null;
  readonly challenge: string;
  readonly operator: boolean;
  readonly invite: string | null;
}

/** Refuses a peer of another protocol version before anything else of its message is read. */
export function checkVersion(payload: unknown): void {
  const version =
    payload !== null && typeof payload === 'object' && 'protocolVersion' in payload
      ? payload.protocolVersion
      : undefined;
  if (version === PROTOCOL_VERSION) return;
  const older = typeof version === 'number' && version > PROTOCOL_VERSION;
  const remedy = older
    ? 'The server is the older one: ask its operator to update it.'
    : 'Reload the page, or update the weft command.';
  throw new ProtocolError(
    'protocol-version',
    `You speak version ${String(version).slice(0, 20)} of the protocol, the server version ${PROTOCOL_VERSION}. ${remedy}`,
  );
}

export const clientRoom = (run: LiveRun, clientId: string): string => `client:${run.runId}:${clientId}`;
export const runRoom = (run: LiveRun): string => `run:${run.runId}`;
const evaluatorRoom = (run: LiveRun): string => `evaluators:${run.runId}`;

/** Sends a notice to a room. */
export function notify<E extends keyof VolunteerNotices>(
  namespace: Namespace,
  room: string,
  event: E,
  payload: z.output<VolunteerNotices[E]>,
): void {
  namespace.to(room).emit(event, payload);
}

/** Passes a run's news on to its volunteers. Returns a function that stops it. */
export function tellVolunteers(
  namespace: Namespace,
  run: LiveRun,
  later: (key: string, work: () => void) => void,
  { monotonic, onFailure }: { monotonic: () => number; onFailure: (error: unknown) => void },
): () => void {
  const sweepOf = (event: 'round:state' | 'run:state', payload: () => unknown) =>
    new Sweep({ namespace, room: runRoom(run), event, payload }, DEFAULT_SWEEP, onFailure);
  const rounds = sweepOf('round:state', () => run.roundView());
  const runs = sweepOf('run:state', () => run.view());
  const news = new RoundNews(monotonic);
  const stop = run.listen({
    granted: (clientId, lease) => notify(namespace, clientRoom(run, clientId), 'lease:granted', lease),
    revoked: (clientId, leaseId, reason, lateMs) =>
      notify(namespace, clientRoom(run, clientId), 'lease:revoked', { leaseId, reason, lateMs }),
    // Long enough open to be told why, in answer to whatever it asks.
    banned: (clientId) => {
      setTimeout(() => namespace.in(clientRoom(run, clientId)).disconnectSockets(true), BANNED_MS).unref();
    },
    changed: () =>
      later(`round:${run.runId}`, () => {
        const kind = news.of(run.roundView());
        if (kind !== null) rounds.tell(kind === 'urgent');
      }),
    runChanged: () => runs.tell(true),
    evaluationAvailable: (version) =>
      notify(namespace, evaluatorRoom(run), 'evaluation:available', { runId: run.runId, version }),
  });
  return () => {
    stop();
    rounds.close();
    runs.close();
  };
}

/** Serves one volunteer's socket. */
export function serveVolunteer(socket: Socket, deps: SocketDeps): void {
  const { registry, access, invites, limits, logger, meter, monotonic } = deps;
  const { pace } = deps.pressure;
  let greeted: Greeted | null = null;
  let proved: (Greeted & { readonly clientId: string }) | null = null;
  let chunks = 0;
  const address = deps.addressOf(socket);
  let badSignatures = 0;
  const idle = setTimeout(() => socket.disconnect(true), PROVE_WITHIN_MS);

  const client = () => {
    if (!proved) {
      throw new ProtocolError(
        'out-of-order',
        'Say volunteer:hello and volunteer:prove first; after a reconnection, again.',
      );
    }
    registry.bans.check({ clientId: proved.clientId, address });
    return proved;
  };
  const evaluator = () => {
    const known = client();
    if (known.operator) return known;
    throw new ProtocolError(
      'evaluation-refused',
      'Evaluations are for clients of the operator; say hello with the token of an operator.',
    );
  };

  const handlers: Handlers<typeof VOLUNTEER_REQUESTS> = {
    'volunteer:hello': (hello) => {
      if (proved)
        throw new ProtocolError(
          'out-of-order',
          'This connection has said hello already; open another for another run.',
        );
      registry.bans.check({ clientId: null, address });
      limits.hello(address);
      const operator = hello.operatorToken !== null;
      if (hello.operatorToken !== null) access.check(hello.operatorToken, 'operator');
      else if (!greeted) pace.take();
      const run = hello.runId === null ? registry.newest() : registry.get(hello.runId);
      const challenge = makeChallenge();
      greeted = {
        run,
        name: hello.name,
        challenge,
        operator,
        invite: hello.invite,
      };
      return { run: run.view(), challenge };
    },
    'volunteer:prove': async ({ publicKey, signature }) => {
      if (!greeted || proved) throw new ProtocolError('out-of-order', 'volunteer:prove answers volunteer:hello, once.');
      const asked = greeted;
      // A challenge is good for one answer.
      greeted = null;
      await pace
        .check(() => checkSignature(publicKey, asked.challenge, signature))
        .catch((error: unknown) => {
          const isWrong = error instanceof ProtocolError && error.code === 'bad-signature';
          if (isWrong && ++badSignatures >= MOST_BAD_SIGNATURES) setImmediate(() => socket.disconnect(true));
          throw error;
        });
      // Nobody is here any more who could be counted as such.
      if (socket.disconnected) throw new ProtocolError('out-of-order', 'The connection broke during the handshake.');
      const clientId = clientIdOf(publicKey);
      registry.bans.check({ clientId, address });
      registry.bans.sawAddress(clientId, address);
      clearTimeout(idle);
      const { run, operator } = asked;
      if (run.settings.admission === 'invited' && !operator) invites.admit(run.runId, clientId, asked.invite);
      proved = { ...asked, clientId };
      await socket.join([runRoom(run), clientRoom(run, clientId), ...(operator ? [evaluatorRoom(run)] : [])]);
      run.volunteers.connected(clientId, asked.name, !operator);
      const open = operator ? run.openEvaluation() : null;
      if (open !== null) socket.emit('evaluation:available', { runId: run.runId, version: open });
      return { clientId, round: run.roundView() };
    },
    'round:join': (join) => {
      const { run, clientId } = client();
      limits.join(clientId);
      if (run.settings.admission === 'invited') invites.check(run.runId, clientId);
      return run.volunteers.join(clientId, join);
    },
    'round:leave': () => {
      client().run.volunteers.leave(client().clientId);
      return {};
    },
    'lease:heartbeat': (heartbeat) => client().run.volunteers.heartbeat(client().clientId, heartbeat),
    'lease:release': ({ leaseId, reason }) => {
      client().run.volunteers.release(client().clientId, leaseId, reason);
      return {};
    },
    'upload:begin': (begin) => client().run.volunteers.uploadBegin(client().clientId, begin),
    'upload:chunk': async ({ leaseId, offset, bytes }) => {
      if (chunks >= CHUNKS_HELD) {
        throw new ProtocolError('rate-limited', `At most ${MAX_CHUNKS_IN_FLIGHT} chunks may wait for their answer.`, {
          retryAfterMs: 100,
        });
      }
      chunks += 1;
      try {
        return await client().run.volunteers.uploadChunk(client().clientId, leaseId, offset, bytes);
      } finally {
        chunks -= 1;
      }
    },
    'upload:commit': ({ leaseId, sha256 }) => client().run.volunteers.uploadCommit(client().clientId, leaseId, sha256),
    'upload:withdraw': ({ receiptId }) => client().run.rights.withdraw(client().clientId, receiptId),
    'volunteer:forget': async () => {
      const { run, clientId } = client();
      const reply = await run.rights.forget(clientId);
      invites.forget(run.runId, clientId);
      // The key is nobody's any more; who goes on says hello with a new one.
      run.volunteers.disconnected(clientId);
      proved = null;
      return reply;
    },
    'evaluation:next': async () => ({ job: await evaluator().run.nextEvaluation(client().clientId) }),
    'evaluation:report': ({ jobId, results }) => {
      evaluator().run.reportEvaluation(client().clientId, jobId, results);
      return {};
    },
  };

  serveRequests(socket, VOLUNTEER_REQUESTS, handlers, {
    rate: new RateLimit(DEFAULT_RATE, monotonic),
    before: (event, payload) => {
      if (event === 'volunteer:hello') checkVersion(payload);
      proved?.run.volunteers.sawFrame(proved.clientId);
    },
    onFailure: (event, error) =>
      logger.error(
        { err: error, event, run: proved?.run.runId, client: proved?.clientId },
        'a volunteer’s message failed',
      ),
    answered: meter(() => proved?.run.runId).answered,
  });
  socket.on('disconnect', () => {
    clearTimeout(idle);
    proved?.run.volunteers.disconnected(proved.clientId);
  });
}
