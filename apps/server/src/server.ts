// One server: opens its folders, takes its runs up again, listens. Everything it needs is an option, so that a test, the
// demo and `weft serve` start the same thing.
import { existsSync } from 'node:fs';
import type { Server as HttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join, resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { HEARTBEAT_MS, HIDDEN_LEASE_MS, LEASE_MS } from '@weft/protocol';
import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';
import { openAlerts } from './alerts/start.ts';
import { Access } from './auth/access.ts';
import { Bans } from './auth/bans.ts';
import { Invites } from './auth/invites.ts';
import { addressOf, LIMITS, type Limits, PeerLimits, trustOf } from './auth/limits.ts';
import { ServerError, systemCode } from './errors.ts';
import { createHttp } from './http/app.ts';
import { Guard } from './http/guard.ts';
import { Metrics } from './http/metrics.ts';
import { Tls } from './http/tls.ts';
import { createLogger } from './log.ts';
import { WorkerMerger } from './merge/pool.ts';
import type { ServerOptions } from './options.ts';
import { openSigner } from './receipts/signer.ts';
import { Gate } from './runs/gate.ts';
import { observers } from './runs/observer.ts';
import { Registry } from './runs/registry.ts';
import { openSockets } from './sockets/open.ts';
import { DEFAULT_PACE, Pressure } from './sockets/pressure.ts';
import { SlowReaders } from './sockets/slow-readers.ts';
import type { SocketDeps } from './sockets/volunteer.ts';
import { removeTemporaries } from './store/check.ts';
import { CheckReport } from './store/check-report.ts';
import { History } from './store/database.ts';
import { DiskSpace } from './store/disk-space.ts';
import { embeddedPlace } from './store/embedded.ts';
import { migrate } from './store/format.ts';
import { lockFolder } from './store/lock.ts';
import { openModelFolder } from './store/model-folder.ts';
import { postgresPlace } from './store/postgres.ts';
import { openTaskFolder } from './store/task-folder.ts';

export interface RunningServer {
  readonly url: string;
  readonly port: number;
  /** The admin's token when it was made just now; null when the folder has one or `adminToken` was given. */
  readonly adminToken: string | null;
  /** SHA-256 of the certificate in use, as browsers show it; null with plain HTTP. */
  fingerprint(): string | null;
  /** Reads or renews the certificate now, as a SIGHUP asks for. Never rejects: the log names what fails. */
  reloadCertificate(): Promise<void>;
  close(): Promise<void>;
}

/** Connections that wait to be accepted: thousands may come back in one second. The system's own limit may be lower. */
const BACKLOG = 4_096;

const TICK_MS = 200;
/** A longer silence of the event loop was a sleep of the machine, which counts for nobody. */
const LONGEST_TICK_MS = 5_000;
const MIN_FREE_BYTES = 256e6;
const UPLOAD_RETENTION_MS = 24 * 3_600_000;
const SWEEP_EVERY_MS = 60_000;
const DRAIN_MS = 10_000;
/** Answers to work that has just ended get this long to leave. */
const ANSWERS_MS = 50;

/**
 * Starts a server. Rejects with a ServerError that names what is missing or wrong: model, tasks, pages, data folder in use,
 * port taken.
 */
export async function createServer(options: ServerOptions): Promise<RunningServer> {
  const logger = options.logger ?? createLogger();
  const dataDir = resolve(options.dataDir);
  const pagesDir = resolve(options.pagesDir);
  for (const page of ['index.html', 'admin.html']) {
    if (!existsSync(join(pagesDir, page))) {
      throw new ServerError(
        'pages-missing',
        `${join(pagesDir, page)} is missing. Build the pages first: npm run build.`,
      );
    }
  }
  const closers: (() => void | Promise<void>)[] = [];
  const closeAll = async () => {
    for (const close of closers.splice(0).reverse()) await close();
  };
  try {
    closers.push(lockFolder(dataDir));
    const monotonic = () => performance.now();
    migrate(dataDir, logger);
    const report = new CheckReport(dataDir, new Date(), logger);
    removeTemporaries(dataDir, report);
    const disk = new DiskSpace(dataDir, options.minFreeBytes ?? MIN_FREE_BYTES, logger, monotonic);
    closers.push(() => disk.close());
    await disk.look();
    const gate = new Gate();
    const model = await openModelFolder(resolve(options.modelDir));
    const tasks = await openTaskFolder(resolve(options.tasksDir));
    const merger = new WorkerMerger(join(dataDir, 'merging'), options.mergeWorkers);
    const now = () => new Date();
    const limits: Limits = { ...LIMITS, ...options.limits };
    const trust = trustOf(options.trustProxy);
    const guard = new Guard(options);
    const access = new Access({
      dataDir,
      now,
      monotonic,
      ...(options.adminToken === undefined ? {} : { adminToken: options.adminToken }),
      times: options.sessionTimes ?? {},
      signIn: { failuresPerAddress: limits.signIns, failuresPerAccount: limits.signIns },
    });
    const invites = new Invites(dataDir, now);
    const { https, host, publicUrl, databaseUrl } = options;
    const tls = https
      ? await Tls.open({
          dataDir,
          host,
          ...(publicUrl === undefined ? {} : { publicUrl }),
          ...(https === true ? {} : { files: https }),
          logger,
          now,
        })
      : null;
    const place = databaseUrl ? postgresPlace(databaseUrl, dataDir) : embeddedPlace(join(dataDir, 'database'), logger);
    const history = new History(place, logger);
    closers.push(() => history.close());
    const seen = { runs: () => registry.all(), indexProblem: () => history.problem, dataDir, monotonic };
    const alerts = openAlerts(options, seen, logger);
    closers.push(() => alerts.close());
    const metrics = new Metrics();
    if (databaseUrl) await history.connect();
    const registry: Registry = new Registry({
      observer: observers(metrics, alerts.watch, {
        alert: (runId, kind, text) => alerts.center.set(runId, kind, text),
      }),
      alerts: () => alerts.center.active(),
      dataDir,
      model,
      tasks,
      merger,
      index: history,
      disk,
      report,
      gate,
      uploadLimits: { pendingBytes: limits.unfinishedBytes, perClient: limits.unfinishedUploads },
      timing: {
        leaseMs: options.leaseMs ?? LEASE_MS,
        hiddenLeaseMs: options.hiddenLeaseMs ?? HIDDEN_LEASE_MS,
        heartbeatMs: options.heartbeatMs ?? HEARTBEAT_MS,
        selectionGraceMs: options.selectionGraceMs ?? 5_000,
        restMs: options.restMs ?? 250,
      },
      logger,
      now,
      monotonic,
      signer: openSigner(dataDir, new Date()),
      bans: new Bans(dataDir, () => new Date()),
    });
    registry.load();
    closers.push(async () => {
      // Ending the workers ends the merges the runs wait for; they are done again after the next start.
      const ended = registry.close();
      await merger.close();
      await ended;
    });
    alerts.watch.start();
    const meter = (run: () => string | undefined) =>
      metrics.meter(run, (runId, code) => alerts.watch.refused(runId, code));
    const pressure = new Pressure(DEFAULT_PACE, monotonic);
    closers.push(() => pressure.close());
    const slowReaders = new SlowReaders((unread) =>
      logger.warn({ unread }, 'a connection whose other side does not read was closed'),
    );
    metrics.measure({ registry, history, alerts, mergesWaiting: () => merger.waiting, pressure, slowReaders });
    const app = await createHttp({
      metrics,
      registry,
      access,
      guard,
      trust,
      tls: tls?.pair ?? null,
      logger,
      history,
      pagesDir,
      requestsPerMinute: limits.requests,
    });
    closers.push(() => app.close());
    if (tls) closers.push(tls.watch(app.server as unknown as HttpsServer));
    const peers = new PeerLimits(limits, monotonic);
    const deps: SocketDeps = {
      registry,
      access,
      invites,
      limits: peers,
      addressOf: (socket) => addressOf(socket.request, trust),
      logger,
      meter,
      monotonic,
      pressure,
      slowReaders,
    };
    const sockets = openSockets(app, deps, { guard, alerts: alerts.center, maxVolunteers: limits.volunteers });
    closers.push(() => sockets.close());
    const port = await listen(app, options.port, options.host);
    closers.push(startTicking(registry, monotonic));
    closers.push(startSweeping(registry, options.uploadRetentionMs ?? UPLOAD_RETENTION_MS, logger));
    closers.push(async () => {
      const left = await gate.close(options.drainMs ?? DRAIN_MS);
      if (left > 0) logger.warn({ left }, 'the server stops before all it had begun was done');
      await pause(ANSWERS_MS);
    });
    const shown = options.host === '0.0.0.0' || options.host === '::' ? 'localhost' : options.host;
    const url = `${tls ? 'https' : 'http'}://${shown.includes(':') ? `[${shown}]` : shown}:${port}`;
    logger.info({ url, runs: registry.all().length }, 'listening');
    return {
      url,
      port,
      adminToken: access.newToken,
      fingerprint: () => tls?.fingerprint ?? null,
      reloadCertificate: async () => tls?.reload(),
      close: closeAll,
    };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

async function listen(app: FastifyInstance, port: number, host: string): Promise<number> {
  try {
    await app.listen({ port, host, backlog: BACKLOG });
  } catch (cause) {
    if (systemCode(cause) !== 'EADDRINUSE' && systemCode(cause) !== 'EACCES') throw cause;
    throw new ServerError(
      'address-in-use',
      `Port ${port} on ${host} is taken or not allowed. Choose another with --port.`,
      { cause },
    );
  }
  return (app.server.address() as AddressInfo).port;
}

function startTicking(registry: Registry, monotonic: () => number): () => void {
  let last = monotonic();
  const timer = setInterval(() => {
    // Whole milliseconds, which add up to the same in any grouping; the rest counts next time.
    const ms = Math.floor(monotonic() - last);
    registry.tick(Math.min(ms, LONGEST_TICK_MS));
    last += ms;
  }, TICK_MS);
  return () => clearInterval(timer);
}

/** Now and then removes the bytes of uploads whose time is over. */
function startSweeping(registry: Registry, retentionMs: number, logger: Logger): () => Promise<void> {
  let sweeping = Promise.resolve();
  let busy = false;
  const timer = setInterval(
    () => {
      if (busy) return;
      busy = true;
      sweeping = registry
        .sweepUploads(retentionMs)
        .catch((error: unknown) => logger.error({ err: error }, 'the bytes of old uploads could not be removed'))
        .finally(() => {
          busy = false;
        });
    },
    Math.min(SWEEP_EVERY_MS, Math.max(retentionMs, TICK_MS)),
  );
  return () => {
    clearInterval(timer);
    return sweeping;
  };
}
