// The upload path at full speed: a round whose volunteers all deliver, beside a bare Socket.IO sink that is sent the same by
// the same client processes, by turns in one run. Ours checks, hashes and flushes every upload; the sink does nothing.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Receipt } from '@weft/protocol';
import { Admin } from '../admin.ts';
import { forkBuilt, nextMessage } from '../child.ts';
import { assetPath, weftPath } from '../entry.ts';
import type { Trial } from '../figure.ts';
import { Helper } from '../helper.ts';
import type { Answer, Order } from '../ingest/clients.ts';
import { makeIndex, processorMs, ServerProcess } from '../server-process.ts';

export interface IngestOptions {
  readonly uploads: number;
  /** Turns of sink and server. */
  readonly turns: number;
  /** Client processes. */
  readonly processes: number;
  /** Uploads on their way at the same time, over all processes. */
  readonly atOnce: number;
  readonly layers: number;
}

/** Least share of the sink's throughput. */
const SHARE = 0.6;
const RANK = 8;

/** SmolLM2-135M as far as its q and v projections go; what carries no adapter is small, for nothing here looks at it. */
const configOf = (layers: number) => ({
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: 576,
  intermediate_size: 64,
  num_hidden_layers: layers,
  num_attention_heads: 9,
  num_key_value_heads: 3,
  vocab_size: 512,
  max_position_embeddings: 512,
  hidden_act: 'silu',
  initializer_range: 1 / 24,
  rms_norm_eps: 1e-5,
  rope_theta: 100_000,
  bos_token_id: 0,
  eos_token_id: 0,
  tie_word_embeddings: true,
});

async function makeModel(folder: string, layers: number): Promise<string> {
  const [like, out] = [join(folder, 'like'), join(folder, 'model')];
  mkdirSync(like);
  writeFileSync(join(like, 'config.json'), JSON.stringify(configOf(layers)));
  const args = [
    'init',
    '--like',
    like,
    '--out',
    out,
    '--dtype',
    'bf16',
    '--tokenizer',
    assetPath('models', 'stories260K'),
  ];
  const child = spawn(process.execPath, [weftPath(), ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (data: Buffer) => (said += String(data)));
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`The checkpoint could not be made:\n${said}`);
  return out;
}

interface Leg {
  readonly ms: number;
  readonly bytes: number;
  /** Of the receiving process. */
  readonly processorMs: number;
}

/** Bytes a second over all legs. */
const speedOf = (legs: readonly Leg[]): number =>
  legs.reduce((sum, { bytes }) => sum + bytes, 0) / (legs.reduce((sum, { ms }) => sum + ms, 0) / 1000);
const megabytes = (bytesPerSecond: number): string => `${(bytesPerSecond / 1e6).toFixed(0)} MB/s`;

export const ingest: Trial<IngestOptions> = async (options, say) => {
  const { uploads, turns, processes, atOnce, layers } = options;
  const folder = mkdtempSync(join(tmpdir(), 'weft-ingest-'));
  const dataDir = join(folder, 'data');
  const closing: (() => void | Promise<void>)[] = [() => rmSync(folder, { recursive: true, force: true })];
  try {
    say('Making a checkpoint of the shapes.');
    const server = await ServerProcess.start({ dataDir, modelDir: await makeModel(folder, layers) });
    closing.push(() => server.end('SIGKILL'));
    const admin = new Admin(server.url);
    closing.push(() => admin.close());
    const runId = await openRun(admin, uploads);
    const perProcess = Array.from({ length: processes }, (_, i) => Math.floor((uploads + i) / processes));
    const clients = perProcess.map(() => new Helper<Order, Answer>('ingest-clients'));
    closing.push(() => {
      for (const each of clients) each.end();
    });
    say(`${uploads} volunteers take their leases.`);
    await Promise.all(
      clients.map((each, i) =>
        each.tell({ do: 'enter', url: server.url, runId, rank: RANK, count: perProcess[i] ?? 0, name: i * uploads }),
      ),
    );
    await admin.until(runId, ({ round }) => round.phase === 'training', 120_000);

    await makeIndex(server.url, runId);

    const receipts: Receipt[] = [];
    const failures: string[] = [];
    const leg = async (to: 'server' | 'sink', turn: number, kind: string, pid: number): Promise<Leg> => {
      const processorBefore = processorMs(pid);
      const startedAt = performance.now();
      const answers = await Promise.all(
        clients.map((each, i) => {
          const own = perProcess[i] ?? 0;
          const from = Math.floor((own * turn) / turns);
          const count = Math.floor((own * (turn + 1)) / turns) - from;
          return each.tell({ do: 'send', to, from, count, atOnce: Math.ceil(atOnce / processes) });
        }),
      );
      const ms = performance.now() - startedAt;
      const sent = answers.flatMap((answer) => (answer.done === 'send' ? answer.receipts : []));
      failures.push(...answers.flatMap((answer) => (answer.done === 'send' ? answer.failures : [])));
      if (to === 'server') receipts.push(...sent);
      const bytes = sent.reduce((sum, receipt) => sum + receipt.bytes, 0);
      const processor = processorMs(pid) - processorBefore;
      say(
        `${kind}: ${sent.length} uploads in ${(ms / 1000).toFixed(2)} s, ${megabytes(bytes / (ms / 1000))}, ${(processor / sent.length).toFixed(1)} ms of processor time each`,
      );
      return { ms, bytes, processorMs: processor };
    };

    const legs: Record<'bare' | 'ours' | 'flushing', Leg[]> = { bare: [], ours: [], flushing: [] };
    const sink = async (turn: number, flushTo: string | null): Promise<Leg> => {
      const child = forkBuilt('ingest-sink', flushTo ? [flushTo] : []);
      try {
        const url = (await nextMessage(child)) as string;
        for (const each of clients) await each.tell({ do: 'connect', sink: url });
        return await leg('sink', turn, flushTo ? 'sink that flushes' : 'bare sink', child.pid ?? 0);
      } finally {
        child.kill();
      }
    };
    for (let turn = 0; turn < turns; turn += 1) {
      legs.bare.push(await sink(turn, null));
      legs.ours.push(await leg('server', turn, 'server', server.pid));
    }
    legs.flushing.push(await sink(0, join(folder, 'flushed')));
    const memory = server.residentBytes();
    // Killed at once, so that only what had been made durable can be found.
    await server.end('SIGKILL');
    const lost = await missing(dataDir, runId, receipts);

    const speeds = { bare: speedOf(legs.bare), ours: speedOf(legs.ours), flushing: speedOf(legs.flushing) };
    const share = speeds.ours / speeds.bare;
    return {
      trial: 'ingest',
      command: `npm run load -- ingest --uploads ${uploads} --turns ${turns} --processes ${processes} --at-once ${atOnce}`,
      figures: [
        {
          name: 'uploads acknowledged',
          measured: `${receipts.length} of ${uploads}`,
          toReach: 'all',
          ok: receipts.length === uploads && failures.length === 0,
        },
        {
          name: 'acknowledged uploads not on disk',
          measured: `${lost.length}`,
          toReach: '0',
          ok: lost.length === 0,
        },
        {
          name: 'throughput beside a bare Socket.IO sink',
          measured: `${(100 * share).toFixed(0)} %`,
          toReach: `≥ ${100 * SHARE} %`,
          ok: share >= SHARE,
        },
      ],
      detail: {
        ...options,
        uploadBytes: receipts[0]?.bytes ?? 0,
        bareSink: megabytes(speeds.bare),
        server: megabytes(speeds.ours),
        sinkThatFlushes: megabytes(speeds.flushing),
        serverResidentMB: Math.round(memory / 1e6),
        legs,
        failures: failures.slice(0, 10),
        lost: lost.slice(0, 10),
        serverErrors: server.errors.slice(0, 2000),
      },
    };
  } finally {
    for (const close of closing.reverse()) await close();
  }
};

async function openRun(admin: Admin, uploads: number): Promise<string> {
  const { runId } = await admin.request('admin:create', {
    name: 'Ingest',
    purpose: 'Measure the upload path.',
    operator: 'the trial',
    ranks: [RANK],
    targets: ['q_proj', 'v_proj'],
    tasks: ['rooms'],
    rounds: 1,
    goal: uploads,
    minimum: uploads,
    selectionMs: 3_600_000,
    trainingMs: 3_600_000,
    localSteps: 20,
    evaluate: false,
  });
  await admin.request('admin:start', { runId });
  return runId;
}

/** What was acknowledged and cannot be found on disk as it was sent. */
async function missing(dataDir: string, runId: string, receipts: readonly Receipt[]): Promise<string[]> {
  const lost: string[] = [];
  for (const receipt of receipts) {
    try {
      const sidecar = join(dataDir, 'runs', runId, 'uploads', String(receipt.round), `${receipt.leaseId}.json`);
      const kept = JSON.parse(readFileSync(sidecar, 'utf8')) as { receipt: Receipt };
      const hash = createHash('sha256');
      const path = join(dataDir, 'uploads', receipt.sha256.slice(0, 2), receipt.sha256);
      for await (const piece of createReadStream(path)) hash.update(piece as Buffer);
      if (kept.receipt.receiptId !== receipt.receiptId) lost.push(`${receipt.leaseId}: another receipt`);
      if (hash.digest('hex') !== receipt.sha256) lost.push(`${receipt.leaseId}: other bytes`);
    } catch (error) {
      lost.push(`${receipt.leaseId}: ${String(error)}`);
    }
  }
  return lost;
}
