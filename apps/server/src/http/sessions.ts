// Signing in and out over HTTP: POST, GET and DELETE of /api/sessions. What a session may do is the sockets' and routes'.
import { ProtocolError, parseMessage, ROUTES, signInSchema } from '@weft/protocol';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Access } from '../auth/access.ts';
import { networkOf } from '../auth/limits.ts';

/** The credential of `Authorization: Bearer …`; empty where there is none. */
export const bearerOf = (request: FastifyRequest): string =>
  /^Bearer (.{1,200})$/.exec(request.headers.authorization ?? '')?.[1] ?? '';

const params = z.object({ sessionId: z.string().max(64) });

export function addSessions(app: FastifyInstance, { access, logger }: { access: Access; logger: Logger }): void {
  app.post(ROUTES.sessions, async (request, reply) => {
    const { name, password } = parseMessage(signInSchema, request.body, 'sign-in');
    const signedIn = await access.signIn(name, password, networkOf(request.ip));
    logger.info({ account: signedIn.name, session: signedIn.sessionId }, 'signed in');
    return reply.header('cache-control', 'no-store').send(signedIn);
  });
  app.get(ROUTES.sessions, (request) => {
    const actor = access.check(bearerOf(request), 'owner');
    return { sessions: access.sessions(actor) };
  });
  app.delete(ROUTES.session(':sessionId'), (request) => {
    const actor = access.check(bearerOf(request), 'viewer');
    const { sessionId } = parseMessage(params, request.params, 'address');
    if (sessionId === 'current' && actor.sessionId === null) {
      throw new ProtocolError(
        'unknown-account',
        'The admin token has no session to end; weft admin new-token replaces it.',
      );
    }
    const id = sessionId === 'current' ? (actor.sessionId ?? '') : sessionId;
    if (id !== actor.sessionId) access.check(bearerOf(request), 'owner');
    const ended = access.endSessions({ sessionId: id });
    logger.info({ account: actor.name, session: id }, 'ended a session');
    return { ended };
  });
}
