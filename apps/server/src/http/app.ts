// The HTTP side: pages, manifests, files, adapters, health. Errors are JSON: { error: WireError }.
import { createReadStream, existsSync } from 'node:fs';
import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import helmet from '@fastify/helmet';
import rateLimit from '@fastify/rate-limit';
import statics from '@fastify/static';
import {
  type ErrorCode,
  type Health,
  idSchema,
  ProtocolError,
  parseMessage,
  ROUTES,
  sha256Schema,
} from '@weft/protocol';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Access } from '../auth/access.ts';
import { networkOf, type Trust } from '../auth/limits.ts';
import { messageOf } from '../errors.ts';
import type { Registry } from '../runs/registry.ts';
import { SIZES } from '../sizes.ts';
import type { History } from '../store/database.ts';
import { ADAPTER_FILES, adapterFolder, adapterZip } from './adapter.ts';
import { sendBlob } from './blob.ts';
import type { KeyAndCertificate } from './certificate.ts';
import type { Guard } from './guard.ts';
import type { Metrics } from './metrics.ts';
import { addSessions, bearerOf } from './sessions.ts';

export interface HttpDeps {
  readonly registry: Registry;
  readonly access: Access;
  readonly guard: Guard;
  /** Which proxies may name the address a request comes from. */
  readonly trust: Trust;
  /** Null for plain HTTP. */
  readonly tls: KeyAndCertificate | null;
  readonly logger: Logger;
  readonly history: History;
  readonly metrics: Metrics;
  /** Folder of the built pages: index.html, admin.html and what they load. */
  readonly pagesDir: string;
  /** Requests one address may make a minute. */
  readonly requestsPerMinute: number;
}

const STATUS: Partial<Record<ErrorCode, number>> = {
  unauthorised: 401,
  forbidden: 403,
  'origin-refused': 403,
  'unknown-account': 404,
  'bad-message': 400,
  'unknown-run': 404,
  'not-found': 404,
  'unknown-receipt': 404,
  'no-proof': 409,
  'rate-limited': 429,
  overloaded: 503,
  'index-away': 503,
  'storage-full': 507,
  internal: 500,
};

const runParams = z.object({ runId: idSchema });
const proofParams = runParams.extend({ receiptId: idSchema });
const adapterParams = z.object({ runId: idSchema, file: z.enum([...ADAPTER_FILES, 'adapter.zip']) });
const adapterQuery = z.object({
  rank: z.coerce.number().int().positive().optional(),
  version: z.coerce.number().int().positive().optional(),
});

const TYPES: Record<string, string> = {
  'adapter_config.json': 'application/json; charset=utf-8',
  'adapter_model.safetensors': 'application/octet-stream',
  'README.md': 'text/markdown; charset=utf-8',
  'adapter.zip': 'application/zip',
};

const SERVER = {
  maxHeaderSize: SIZES.httpHeaderBytes,
  headersTimeout: SIZES.httpHeaderMs,
  // Node looks for slow requests this often.
  connectionsCheckingInterval: 1_000,
} as const;
const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS']);

/** Answers what Node could not read as a request, such as too many header lines, and hangs up. */
function refuseUnread(cause: Error & { code?: string }, socket: Socket): void {
  const tooLarge = cause.code === 'HPE_HEADER_OVERFLOW';
  const late = cause.code === 'ERR_HTTP_REQUEST_TIMEOUT';
  const status = tooLarge ? '431 Request Header Fields Too Large' : late ? '408 Request Timeout' : '400 Bad Request';
  const why = tooLarge
    ? `Its header lines have more than ${SIZES.httpHeaderBytes} bytes.`
    : late
      ? 'It came too slowly.'
      : '';
  const error = new ProtocolError('bad-message', `This is no HTTP request the server reads. ${why}`.trimEnd());
  const body = JSON.stringify({ error: error.toWire() });
  const head = `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n`;
  if (socket.writable) socket.write(head + body);
  socket.destroySoon();
}

/** What an HTTP peer is told of an error. */
function toHttpError(error: unknown): { status: number; error: ProtocolError } {
  if (error instanceof ProtocolError) return { status: STATUS[error.code] ?? 400, error };
  const status = error instanceof Error && 'statusCode' in error ? Number(error.statusCode) : 500;
  if (status === 404) return { status, error: new ProtocolError('not-found', messageOf(error)) };
  if (status >= 400 && status < 500) return { status, error: new ProtocolError('bad-message', messageOf(error)) };
  return {
    status: 500,
    error: new ProtocolError('internal', 'The server failed at this request; its log says why.', { cause: error }),
  };
}

export async function createHttp(deps: HttpDeps): Promise<FastifyInstance> {
  const { registry, logger, pagesDir } = deps;
  const app = fastify({
    loggerInstance: logger.child({ part: 'http' }, { level: 'warn' }),
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 200 },
    trustProxy: deps.trust,
    bodyLimit: SIZES.httpBodyBytes,
    requestTimeout: SIZES.httpRequestMs,
    clientErrorHandler: refuseUnread,
    ...(deps.tls ? { https: { ...deps.tls, ...SERVER } } : { http: SERVER }),
    frameworkErrors: (error, _request, reply) => {
      const told = toHttpError(error);
      void (reply as FastifyReply).code(told.status).send({ error: told.error.toWire() });
    },
  }) as unknown as FastifyInstance;
  app.addHook('onRequest', async (request) => {
    if (request.url.length > SIZES.httpUrlCharacters) {
      throw new ProtocolError('bad-message', `The address has more than ${SIZES.httpUrlCharacters} characters.`);
    }
    const { host, origin } = request.headers;
    deps.guard.checkHost({ host });
    if (!SAFE_METHODS.has(request.method)) deps.guard.checkOrigin({ host, origin });
  });
  app.setErrorHandler((error, request, reply) => {
    const told = toHttpError(error);
    if (told.status >= 500) request.log.error({ err: error, path: request.routeOptions.url }, 'a request failed');
    // Found again in the log by this number.
    void reply.header('x-request-id', request.id);
    void reply.code(told.status).send({ error: told.error.toWire() });
  });
  app.setNotFoundHandler((request, reply) => {
    const error = new ProtocolError('not-found', `There is nothing at ${request.url.slice(0, 200)}.`);
    void reply.code(404).send({ error: error.toWire() });
  });
  await app.register(helmet, {
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        // No inline script, no inline style, no eval: what runs is a file of this server. Every browser with WebGPU counts
        // ws: and wss: of this host as 'self'.
        defaultSrc: ["'self'"],
        scriptSrc: ["'self'"],
        scriptSrcAttr: ["'none'"],
        styleSrc: ["'self'"],
        connectSrc: ["'self'"],
        imgSrc: ["'self'", 'data:', 'blob:'],
        workerSrc: ["'self'"],
        objectSrc: ["'none'"],
        baseUri: ["'self'"],
        formAction: ["'self'"],
        frameAncestors: ["'none'"],
      },
    },
    // Plain HTTP on a home network must keep working; a proxy that speaks TLS adds the header itself.
    strictTransportSecurity: false,
  });
  await app.register(rateLimit, {
    max: deps.requestsPerMinute,
    timeWindow: '1 minute',
    keyGenerator: (request) => networkOf(request.ip),
    errorResponseBuilder: (_request, context) =>
      new ProtocolError('rate-limited', `Too many requests; wait ${context.after}.`, { retryAfterMs: context.ttl }),
  });
  await app.register(statics, { root: pagesDir, index: 'index.html' });
  addPages(app);
  addRuns(app, deps);
  addSessions(app, deps);
  addOperatorFiles(app, deps);
  const metrics = deps.metrics.registry;
  app.get(ROUTES.health, (): Health => ({ status: 'ok', runs: registry.all().length, storage: registry.storage() }));
  app.get(ROUTES.metrics, async (_request, reply) => {
    const text = await metrics.metrics();
    return reply.type(metrics.contentType).send(text);
  });
  return app;
}

function addPages(app: FastifyInstance): void {
  app.get('/admin', (_request, reply) => reply.sendFile('admin.html'));
}

function addRuns(app: FastifyInstance, { registry }: HttpDeps): void {
  const params = (request: FastifyRequest) => parseMessage(runParams, request.params, 'address');
  app.get(ROUTES.runs, () => ({ runs: registry.all().map((run) => run.view()) }));
  app.get(ROUTES.run(':runId'), (request) => registry.get(params(request).runId).view());
  app.get(ROUTES.key, () => registry.signer.key);
  app.get(ROUTES.proof(':runId', ':receiptId'), (request) => {
    const { runId, receiptId } = parseMessage(proofParams, request.params, 'address');
    return registry.get(runId).rights.proof(receiptId);
  });
  app.get(ROUTES.manifest(':runId'), (request) => registry.get(params(request).runId).manifest());
  app.get(ROUTES.blob(':sha256'), async (request, reply) => {
    const { sha256 } = parseMessage(z.object({ sha256: sha256Schema }), request.params, 'address');
    const served = registry.files.get(sha256);
    const path = served?.path ?? registry.blobs.path(sha256);
    if (!existsSync(path)) throw new ProtocolError('not-found', `The server has no file ${sha256.slice(0, 12)}….`);
    return sendBlob(request, reply, path, sha256);
  });
}

function addOperatorFiles(app: FastifyInstance, { registry, access, history }: HttpDeps): void {
  const authorise = (request: FastifyRequest): void => {
    access.check(bearerOf(request), 'viewer');
  };
  app.get(ROUTES.adapter(':runId', ':file'), async (request, reply) => {
    authorise(request);
    const { runId, file } = parseMessage(adapterParams, request.params, 'address');
    const query = parseMessage(adapterQuery, request.query, 'query');
    const source = await registry.get(runId).adapterSource(query);
    const bytes = file === 'adapter.zip' ? adapterZip(source) : adapterFolder(source)[file];
    const name = file === 'adapter.zip' ? `${runId}-v${source.version}-r${source.grant.rank}.zip` : file;
    return sendFile(reply, bytes, name, TYPES[file] ?? 'application/octet-stream');
  });
  app.get(ROUTES.contributors(':runId'), async (request) => {
    authorise(request);
    const run = registry.get(parseMessage(runParams, request.params, 'address').runId);
    return { contributors: await history.contributors(run.runId) };
  });
  app.get(ROUTES.events(':runId'), async (request, reply) => {
    authorise(request);
    const run = registry.get(parseMessage(runParams, request.params, 'address').runId);
    return reply.type('application/x-ndjson; charset=utf-8').send(Readable.from(eventsOf(run.eventPaths)));
  });
}

/** One file after the other; what is written meanwhile is not waited for. */
async function* eventsOf(paths: readonly string[]): AsyncGenerator<Buffer> {
  for (const path of paths) yield* createReadStream(path) as AsyncIterable<Buffer>;
}

function sendFile(reply: FastifyReply, bytes: Uint8Array, name: string, type: string): FastifyReply {
  return reply
    .type(type)
    .header('content-disposition', `attachment; filename="${name}"`)
    .header('cache-control', 'no-store')
    .send(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
}
