// Plays the experiment for real: a server with its merge process, sockets, and one session a client with a GPU device of
// its own. What every client saw of its losses and what the server committed is all that comes back.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readAdapter } from '@weft/formats';
import { ROUTES, type RoundRecord, type StrategyName } from '@weft/protocol';
import { createServer } from '@weft/server';
import { VolunteerSession } from '@weft/volunteer';
import { pino } from 'pino';
import { AdminClient } from '../../admin-client.ts';
import { CLIENT, openNodePorts } from '../../node-volunteer/ports.ts';
import { CLIENTS, MODEL_DIR, settingsOf, TASKS_DIR } from './definition.ts';

const TOKEN = 'a token for tests';

export interface PlayedRound {
  readonly record: RoundRecord;
  /** By client: the loss of every step. */
  readonly losses: ReadonlyMap<string, readonly number[]>;
  /** By module: the committed update, [out, in], dense. */
  readonly deltas: ReadonlyMap<string, Float64Array>;
}

/** Losses of one client, by round, of all its steps. */
async function volunteer(
  url: string,
  runId: string,
  stateDir: string,
  { name, rank, task }: (typeof CLIENTS)[number],
): Promise<number[][]> {
  const { release, ...ports } = await openNodePorts({
    origin: url,
    stateDir,
    role: 'volunteer',
    onInvalidNotice: (error) => {
      throw error;
    },
  });
  const session = new VolunteerSession({
    ...ports,
    client: CLIENT,
    name,
    runId,
    ownLimits: { maxMemoryBytes: null, maxRank: rank, maxUploadBytes: null },
    data: { kind: 'task', task },
  });
  try {
    await session.start();
    const losses: number[][] = [];
    for (const { round, loss } of session.state.losses) {
      losses[round - 1] ??= [];
      losses[round - 1]?.push(loss);
    }
    return losses;
  } finally {
    await session.close();
    release();
  }
}

/** The update of one committed version. Asked for at the rank of the largest matrix, it is the whole state in float32. */
async function committed(url: string, runId: string, version: number): Promise<Map<string, Float64Array>> {
  const get = async (file: string): Promise<Uint8Array> => {
    const reply = await fetch(`${url}${ROUTES.adapter(runId, file)}?rank=64&version=${version}`, {
      headers: { authorization: `Bearer ${TOKEN}` },
    });
    if (!reply.ok) throw new Error(`${file} of version ${version}: ${reply.status} ${await reply.text()}`);
    return new Uint8Array(await reply.arrayBuffer());
  };
  const config = new TextDecoder().decode(await get('adapter_config.json'));
  const { matrices } = readAdapter({ config, weights: await get('adapter_model.safetensors') });
  return new Map(
    [...matrices].map(([module, { a, b, rank, scale, out, in: columns }]) => {
      const delta = new Float64Array(out * columns);
      for (let i = 0; i < out; i += 1)
        for (let k = 0; k < rank; k += 1) {
          const left = scale * (b[i * rank + k] ?? Number.NaN);
          for (let j = 0; j < columns; j += 1)
            delta[i * columns + j] = (delta[i * columns + j] ?? 0) + left * (a[k * columns + j] ?? Number.NaN);
        }
      return [module, delta];
    }),
  );
}

/** The whole experiment with this strategy. */
export async function play(strategy: StrategyName): Promise<PlayedRound[]> {
  const root = await mkdtemp(join(tmpdir(), 'weft-parity-'));
  const pagesDir = join(root, 'pages');
  await mkdir(pagesDir);
  for (const page of ['index.html', 'admin.html']) await writeFile(join(pagesDir, page), '<!doctype html>');
  const server = await createServer({
    dataDir: join(root, 'data'),
    modelDir: MODEL_DIR,
    tasksDir: TASKS_DIR,
    pagesDir,
    port: 0,
    host: '127.0.0.1',
    adminToken: TOKEN,
    logger: pino({ level: 'error' }),
    selectionGraceMs: 0,
    restMs: 20,
    mergeWorkers: 1,
  });
  const admin = await AdminClient.connect(server.url, TOKEN);
  try {
    const { runId } = await admin.request('admin:create', settingsOf(strategy));
    await admin.request('admin:start', { runId });
    const losses = await Promise.all(
      CLIENTS.map((client) => volunteer(server.url, runId, join(root, client.name), client)),
    );
    const { rounds } = await admin.request('admin:watch', { runId });
    return await Promise.all(
      rounds.map(async (record, i) => ({
        record,
        losses: new Map(CLIENTS.map(({ name }, c) => [name, losses[c]?.[i] ?? []])),
        deltas: await committed(server.url, runId, record.version),
      })),
    );
  } finally {
    admin.close();
    await server.close();
    await rm(root, { recursive: true, force: true });
  }
}
