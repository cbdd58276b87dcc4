// A server on a free port for tests: the small real model and real tasks, empty pages, short times.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  ADMIN_NOTICES,
  ADMIN_REQUESTS,
  type AdminRequests,
  type Alert,
  ackSchema,
  NAMESPACES,
  PROTOCOL_VERSION,
  ProtocolError,
  type RunSettingsInput,
  type RunSnapshot,
} from '@weft/protocol';
import { Client } from 'pg';
import { pino } from 'pino';
import { io, type Socket } from 'socket.io-client';
import type { z } from 'zod';
import { createServer, type RunningServer, type ServerOptions } from '../index.ts';

const asset = (path: string): string => fileURLToPath(new URL(`../../../../assets/${path}`, import.meta.url));
export const MODEL_DIR = asset('models/stories260K');
export const TASKS_DIR = asset('tasks/natural-instructions');
export const ADMIN_TOKEN = 'a token for tests';

export const SETTINGS: RunSettingsInput = {
  name: 'Test run',
  purpose: 'Test the server.',
  operator: 'the tests',
  ranks: [1, 2, 4],
  tasks: ['rooms', 'containers', 'travel'],
  rounds: 2,
  goal: 3,
  minimum: 3,
  localSteps: 2,
  batchSize: 4,
  sequenceLength: 64,
  learningRate: 0.01,
  evaluate: false,
};

export class TestAdmin {
  readonly socket: Socket;

  constructor(url: string, auth: Record<string, unknown> = { protocolVersion: PROTOCOL_VERSION, token: ADMIN_TOKEN }) {
    this.socket = io(`${url}${NAMESPACES.admin}`, { auth, transports: ['websocket'], forceNew: true });
  }

  async request<E extends keyof AdminRequests>(
    event: E,
    payload: z.input<AdminRequests[E]['payload']>,
  ): Promise<z.output<AdminRequests[E]['reply']>> {
    const answer: unknown = await this.socket.timeout(20_000).emitWithAck(event, payload);
    const ack = ackSchema(ADMIN_REQUESTS[event].reply).parse(answer);
    if (!ack.ok) throw ProtocolError.fromWire(ack.error);
    return ack.value as z.output<AdminRequests[E]['reply']>;
  }

  snapshot(runId: string): Promise<RunSnapshot> {
    return this.request('admin:watch', { runId });
  }

  /** Resolves with the first snapshot of the run that `wanted` holds for. */
  async until(runId: string, wanted: (snapshot: RunSnapshot) => boolean, ms = 20_000): Promise<RunSnapshot> {
    let latest: RunSnapshot | undefined;
    return new Promise((resolve, reject) => {
      const stop = () => {
        clearTimeout(timer);
        this.socket.off('run:snapshot', look);
      };
      const look = (data: unknown) => {
        latest = ADMIN_NOTICES['run:snapshot'].parse(data);
        if (latest.run.runId !== runId || !wanted(latest)) return;
        stop();
        resolve(latest);
      };
      const timer = setTimeout(() => {
        stop();
        reject(new Error(`not in ${ms} ms; at last ${JSON.stringify({ ...latest, rounds: latest?.rounds.length })}`));
      }, ms);
      this.socket.on('run:snapshot', look);
      this.snapshot(runId).then(look, reject);
    });
  }

  /** Resolves when the kinds of the alerts that stand are as wanted. */
  async untilAlerts(wanted: (kinds: string[]) => boolean, ms = 15_000): Promise<Alert[]> {
    for (const end = Date.now() + ms; ; ) {
      const { alerts } = await this.request('admin:overview', {});
      const kinds = alerts.map(({ kind }) => kind);
      if (wanted(kinds)) return alerts;
      if (Date.now() > end) throw new Error(`not in ${ms} ms; at last ${JSON.stringify(alerts)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  close(): void {
    this.socket.close();
  }
}

/** An empty data folder and pages; everything below it goes with `remove`. */
export function makeFolders(): { root: string; dataDir: string; pagesDir: string; remove(): void } {
  const root = mkdtempSync(join(tmpdir(), 'weft-server-'));
  const pagesDir = join(root, 'pages');
  mkdirSync(pagesDir);
  writeFileSync(join(pagesDir, 'index.html'), '<!doctype html><title>volunteer</title>');
  writeFileSync(join(pagesDir, 'admin.html'), '<!doctype html><title>admin</title>');
  return { root, pagesDir, dataDir: join(root, 'data'), remove: () => rmSync(root, { recursive: true, force: true }) };
}

/** Set while the tests run on PostgreSQL (vitest.postgres-file.ts). */
const testDatabase = (): string => process.env.WEFT_TEST_DATABASE_URL ?? '';

/** Deletes the history index of a folder whose server does not run, wherever it lives. */
export async function deleteIndex(dataDir: string): Promise<void> {
  rmSync(join(dataDir, 'database'), { recursive: true, force: true });
  if (testDatabase() === '') return;
  const { schema } = JSON.parse(readFileSync(join(dataDir, 'index.json'), 'utf8')) as { schema: string };
  await queryTestDatabase(`drop schema "${schema}" cascade`);
}

/** Rows of a question to a PostgreSQL, as arrays. */
export async function queryTestDatabase(text: string, url = testDatabase()): Promise<unknown[][]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<unknown[]>({ text, rowMode: 'array' })).rows;
  } finally {
    await client.end();
  }
}

export const testOptions = (folders: { dataDir: string; pagesDir: string }): ServerOptions => ({
  dataDir: folders.dataDir,
  pagesDir: folders.pagesDir,
  modelDir: MODEL_DIR,
  tasksDir: TASKS_DIR,
  port: 0,
  host: '127.0.0.1',
  adminToken: ADMIN_TOKEN,
  selectionGraceMs: 100,
  restMs: 50,
  mergeWorkers: 1,
  ...(testDatabase() ? { databaseUrl: testDatabase() } : {}),
});

/** Starts a server; what goes wrong inside is printed. */
export function startServer(
  folders: { dataDir: string; pagesDir: string },
  options: Partial<ServerOptions> = {},
): Promise<RunningServer> {
  return createServer({ ...testOptions(folders), logger: pino({ level: 'error' }), ...options });
}
