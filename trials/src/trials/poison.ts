// A client that lies about how much it has trained: 10⁹ tokens, then everything its grant lets it claim. What it can move is read
// off the adapter the server exports before and after, in cohorts below and above the eight from which `maxWeightShare` holds.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readSafetensors, toFloat32 } from '@weft/formats';
import { type Lease, ROUTES, type RoundRecord, type RunSettingsInput } from '@weft/protocol';
import { Admin } from '../admin.ts';
import type { Figure, Trial } from '../figure.ts';
import { told } from '../hostile/case.ts';
import { Volunteer } from '../peers.ts';
import { ADMIN_TOKEN, ServerProcess } from '../server-process.ts';

export interface PoisonOptions {
  /** Honest volunteers of the large cohort. */
  readonly honest: number;
}

const RANK = 2;
const STEPS = 20;
const BATCH = 8;
const SEQUENCE = 64;
/** What an honest volunteer of the trial has really processed: a tenth of what the grant allows. */
const HONEST_TOKENS = (STEPS * BATCH * SEQUENCE) / 10;
const MOST_TOKENS = STEPS * BATCH * SEQUENCE;
const MAX_SHARE = 0.25;
const FROM_CLIENTS = 8;

interface Member {
  readonly volunteer: Volunteer;
  readonly lease: Lease;
  readonly start: Uint8Array;
}

/**
 * Start factors with every element of B set: the honest ones to `value`, the liar to its negative. `index` tells those of one
 * cohort apart by a trifle, as equal bytes would be taken for a copy.
 */
function update(start: Uint8Array, value: number, index = 0): Uint8Array {
  const bytes = new Uint8Array(start);
  for (const [name, tensor] of readSafetensors(bytes).tensors) {
    if (!name.includes('lora_B')) continue;
    const values = toFloat32(tensor);
    values.fill(value);
    values[0] = value * (1 + index * 1e-4);
  }
  return bytes;
}

/** Products B·A of the committed adapter, by matrix. */
async function merged(url: string, runId: string): Promise<Map<string, Float64Array>> {
  const headers = { authorization: `Bearer ${ADMIN_TOKEN}` };
  const reply = await fetch(`${url}${ROUTES.adapter(runId, 'adapter_model.safetensors')}?rank=${RANK}`, { headers });
  if (!reply.ok) throw new Error(`The adapter could not be had: ${await reply.text()}`);
  return products(new Uint8Array(await reply.arrayBuffer()));
}

/** B·A of every matrix of a file. */
function products(bytes: Uint8Array): Map<string, Float64Array> {
  const { tensors } = readSafetensors(bytes);
  const found = new Map<string, Float64Array>();
  for (const [name, a] of tensors) {
    const b = tensors.get(name.replace('lora_A', 'lora_B'));
    if (!name.includes('lora_A') || !b) continue;
    const [rank = 0, columns = 0] = a.shape;
    const [rows = 0] = b.shape;
    const [left, right] = [toFloat32(b), toFloat32(a)];
    const product = new Float64Array(rows * columns);
    for (let i = 0; i < rows; i += 1) {
      for (let k = 0; k < rank; k += 1) {
        const factor = left[i * rank + k] ?? 0;
        for (let j = 0; j < columns; j += 1) {
          const at = i * columns + j;
          product[at] = (product[at] ?? 0) + factor * (right[k * columns + j] ?? 0);
        }
      }
    }
    found.set(name, product);
  }
  return found;
}

/** Σ a·b over all matrices. */
function inner(left: ReadonlyMap<string, Float64Array>, right: ReadonlyMap<string, Float64Array>): number {
  let sum = 0;
  for (const [name, values] of left) {
    const other = right.get(name);
    if (!other) throw new Error(`The adapter lacks ${name}.`);
    for (let i = 0; i < values.length; i += 1) sum += (values[i] ?? 0) * (other[i] ?? 0);
  }
  return sum;
}

interface Outcome {
  readonly refusal: string;
  readonly record: RoundRecord;
  /** Share of the merge the liar has by the record, all its contributions together. */
  readonly share: number;
  /** The same by its direction, as the adapter shows it. */
  readonly moved: number;
}

/** One committed round of honest volunteers who all send one change, and of one who sends its opposite and lies. */
async function round(
  server: ServerProcess,
  admin: Admin,
  honest: number,
  more: Partial<RunSettingsInput>,
): Promise<Outcome> {
  const { runId } = await admin.request('admin:create', {
    name: `Poison ${honest}`,
    purpose: 'Outweigh the others.',
    operator: 'the trial',
    ranks: [RANK],
    tasks: ['rooms'],
    rounds: 1,
    goal: honest + 1,
    minimum: honest + 1,
    selectionMs: 600_000,
    trainingMs: 600_000,
    localSteps: STEPS,
    batchSize: BATCH,
    sequenceLength: SEQUENCE,
    maxWeightShare: MAX_SHARE,
    evaluate: false,
    ...more,
  });
  await admin.request('admin:start', { runId });
  const members = await Promise.all(
    Array.from({ length: honest + 1 }, async (): Promise<Member> => {
      const volunteer = await new Volunteer(server.url).enter(runId);
      const lease = await volunteer.lease(RANK);
      return { volunteer, lease, start: await volunteer.start(lease) };
    }),
  );
  try {
    const [liar, ...others] = members;
    if (!liar) throw new Error('There is nobody.');
    const poison = update(liar.start, -0.01);
    const refusal = await told(liar.volunteer.upload(liar.lease, poison, { targetTokens: 1e9 }));
    await liar.volunteer.upload(liar.lease, poison, { targetTokens: MOST_TOKENS });
    // A buffered run has places while its buffer fills: the liar asks for another, and delivers again if it gets one.
    const again = await liar.volunteer.join(RANK);
    if (again.status === 'leased')
      await liar.volunteer.upload(again.lease, update(liar.start, -0.01, 0.5), { targetTokens: MOST_TOKENS });
    await Promise.all(
      others.map(({ volunteer, lease, start }, i) =>
        volunteer.upload(lease, update(start, 0.01, i + 1), { targetTokens: HONEST_TOKENS }),
      ),
    );
    const ended = await admin.until(runId, ({ rounds }) => rounds.length > 0);
    const [record] = ended.rounds;
    if (record?.outcome !== 'committed') throw new Error(`The round was not committed: ${record?.reason}`);
    // M = (1 − w)·H + w·(−H) = (1 − 2w)·H, where H is what the honest ones agree on.
    const wanted = products(update(liar.start, 0.01));
    const along = inner(await merged(server.url, runId), wanted) / inner(wanted, wanted);
    const own = record.contributions.filter(({ clientId }) => clientId === liar.volunteer.clientId);
    const share = own.reduce((sum, { weight }) => sum + weight, 0);
    return { refusal, record, share, moved: (1 - along) / 2 };
  } finally {
    for (const { volunteer } of members) volunteer.close();
  }
}

/**
 * What its claim, cut to its grant, and the run's largest share allow. Below eight clients the largest share does not apply, by
 * design: among four a quarter each is what everybody has, and the grant is what bounds a claim.
 */
function capOf(honest: number): number {
  const byTokens = MOST_TOKENS / (MOST_TOKENS + honest * HONEST_TOKENS);
  return honest + 1 >= FROM_CLIENTS ? Math.min(byTokens, MAX_SHARE) : byTokens;
}

export const poison: Trial<PoisonOptions> = async ({ honest }, say) => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-poison-'));
  const closing: (() => void | Promise<void>)[] = [() => rmSync(folder, { recursive: true, force: true })];
  try {
    const server = await ServerProcess.start({ dataDir: join(folder, 'data') });
    closing.push(() => server.end('SIGKILL'));
    const admin = new Admin(server.url);
    closing.push(() => admin.close());
    const figures: Figure[] = [];
    const detail: Record<string, unknown> = { honest, honestTokens: HONEST_TOKENS, mostTokens: MOST_TOKENS };
    const cohorts = [
      { others: honest, mode: 'synchronous', name: `among ${honest} others` },
      { others: 4, mode: 'synchronous', name: 'among 4 others, too few for the largest share to apply' },
      { others: honest, mode: 'buffered', name: `among ${honest} others of a buffered run` },
    ] as const;
    for (const { others, mode, name } of cohorts) {
      say(`One liar ${name}.`);
      const more = mode === 'buffered' ? { mode, concurrency: others + 3 } : { mode };
      const { refusal, record, share, moved } = await round(server, admin, others, more);
      const cap = capOf(others);
      const by = others + 1 >= FROM_CLIENTS ? `largest share ${MAX_SHARE}` : 'grant alone';
      figures.push(
        {
          name: `10⁹ tokens claimed ${name}`,
          measured: refusal,
          toReach: 'upload-tokens',
          ok: refusal === 'upload-tokens',
        },
        {
          name: '  its share by the record, claiming all that is left to claim',
          measured: share.toFixed(4),
          toReach: `≤ ${cap.toFixed(4)}: ${by}`,
          ok: share > 0 && share <= cap + 1e-9,
        },
        {
          name: '  its share by what the merged adapter has moved',
          measured: moved.toFixed(4),
          toReach: `≤ ${cap.toFixed(4)}: ${by}`,
          ok: moved <= cap + 1e-3,
        },
      );
      detail[name] = { cap, share, moved, weights: record.contributions.map(({ weight }) => weight) };
    }
    return { trial: 'poison', command: `npm run load -- poison --honest ${honest}`, figures, detail };
  } finally {
    for (const close of closing.reverse()) await close();
  }
};
