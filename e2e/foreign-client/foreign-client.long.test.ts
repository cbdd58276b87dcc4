// Three volunteers in Python, written from the wire's page alone, carry a round of a real server: one over WebSocket, one over
// long polling, one whose line is cut in mid-upload. What was merged is what they sent.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type LoraAdapter, peftTensorName, readAdapter, readSafetensors, toFloat32 } from '@weft/formats';
import {
  inclusionProofSchema,
  leaseSchema,
  ROUTES,
  type RunView,
  receiptSchema,
  roundRecordSchema,
  uploadBeginSchema,
} from '@weft/protocol';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { AdminSocket } from '../tests/support/admin-socket.ts';
import { WeftServer } from '../tests/support/weft-server.ts';
import { findPython, MISSING_PYTHON, runClient } from './python.ts';

const python = findPython();
/** The largest holds the sum of the others, so that the adapter read out at it is the merge itself. */
const RANKS = [2, 4, 8, 16];
const doneSchema = z.object({
  clientId: z.string(),
  receipt: receiptSchema,
  proof: inclusionProofSchema,
  lease: leaseSchema,
  begin: uploadBeginSchema,
  resumedAt: z.array(z.number()),
  heartbeats: z.number(),
});

/** Adds weight · scale · B·A, in float64. */
function addProduct(
  sum: Float64Array,
  { a, b, rank, scale }: { a: Float32Array; b: Float32Array; rank: number; scale: number },
  weight: number,
): void {
  const columns = a.length / rank;
  for (let at = 0; at < sum.length; at += 1) {
    const row = Math.floor(at / columns);
    let value = 0;
    for (let k = 0; k < rank; k += 1) value += (b[row * rank + k] ?? 0) * (a[k * columns + (at % columns)] ?? 0);
    sum[at] = (sum[at] ?? 0) + weight * scale * value;
  }
}

const norm = (values: Float64Array): number => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));

describe.skipIf(python === null)(`a client in Python${python === null ? ` (${MISSING_PYTHON})` : ''}`, () => {
  const server = new WeftServer();
  let folder: string;
  let admin: AdminSocket;
  let run: RunView;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'weft-python-'));
    await server.start();
    admin = new AdminSocket(server.url, server.token);
    run = await admin.request('admin:create', {
      name: 'in another language',
      purpose: 'Show that the page is enough.',
      operator: 'the test',
      ranks: RANKS,
      tasks: ['country-continent', 'travel'],
      rounds: 1,
      goal: 3,
      minimum: 3,
      localSteps: 4,
      batchSize: 4,
      sequenceLength: 48,
      evaluate: false,
    });
    await admin.request('admin:start', { runId: run.runId });
  });

  afterAll(async () => {
    admin.close();
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const join3 = (name: string, rank: number, more: readonly string[] = []) =>
    runClient(python ?? '', [
      server.url,
      ...['--name', name, '--rank', String(rank), '--key', join(folder, `${name}.pem`), '--out', join(folder, name)],
      '--prove',
      ...more,
    ]);

  async function mergedAdapter(): Promise<LoraAdapter> {
    const file = async (name: string) =>
      new Uint8Array(await (await server.get(ROUTES.adapter(run.runId, name))).arrayBuffer());
    const config = new TextDecoder().decode(await file('adapter_config.json'));
    return readAdapter({ config, weights: await file('adapter_model.safetensors') });
  }

  it('delivers factors, gets its receipt, and the merge holds its work', { timeout: 120_000 }, async () => {
    const names = ['over-websocket', 'over-polling', 'with-a-broken-line'];
    const runs = await Promise.all([
      join3(names[0] ?? '', 2),
      join3(names[1] ?? '', 4, ['--transport', 'polling']),
      join3(names[2] ?? '', 8, ['--chunk-bytes', '16384', '--break-at', '20000']),
    ]);
    for (const { code, stderr } of runs) expect(code, stderr).toBe(0);
    const done = runs.map(({ stdout }) => doneSchema.parse(JSON.parse(stdout)));
    expect(done[0]?.resumedAt).toEqual([0]);
    const [fresh, resumed = 0, ...further] = done[2]?.resumedAt ?? [];
    expect(fresh).toBe(0);
    expect(resumed).toBeGreaterThanOrEqual(20_000);
    expect(further).toEqual([]);

    await expect
      .poll(async () => (await (await server.get(ROUTES.run(run.runId))).json()).version, { timeout: 60_000 })
      .toBe(1);
    const events = (await (await server.get(ROUTES.events(run.runId))).text()).trimEnd().split('\n');
    const committed = events.map((line) => JSON.parse(line)).find(({ type }) => type === 'committed');
    const { contributions } = roundRecordSchema.parse(committed.record);
    expect(contributions.map(({ name }) => name).sort()).toEqual(names.toSorted());
    expect(contributions.map(({ quarantined }) => quarantined)).toEqual([null, null, null]);

    // Each has followed its path to the root by its own means, and all were shown the same signed record.
    expect(done.map(({ proof }) => proof.outcome.merged)).toEqual([true, true, true]);
    expect(new Set(done.map(({ proof }) => proof.head.root)).size).toBe(1);
    expect(done.map(({ proof }) => proof.index).sort()).toEqual([0, 1, 2]);

    const tokens = done.reduce((sum, { begin }) => sum + begin.targetTokens, 0);
    const merged = await mergedAdapter();
    expect(merged.matrices.size).toBeGreaterThan(0);
    const uploads = done.map(({ lease, receipt, begin }, i) => {
      const contribution = contributions.find(({ sha256 }) => sha256 === receipt.sha256);
      expect(contribution?.clientId).toBe(done[i]?.clientId);
      expect(contribution?.rank).toBe(lease.grant.rank);
      expect(contribution?.weight).toBeCloseTo(begin.targetTokens / tokens, 9);
      const bytes = new Uint8Array(readFileSync(join(folder, names[i] ?? '', 'update.safetensors')));
      return { tensors: readSafetensors(bytes, 'the update').tensors, lease, weight: begin.targetTokens / tokens };
    });
    for (const [module, matrix] of merged.matrices) {
      const expected = new Float64Array(matrix.out * matrix.in);
      for (const { tensors, lease, weight } of uploads) {
        const factor = (which: 'A' | 'B') => {
          const tensor = tensors.get(peftTensorName(module, which));
          if (!tensor) throw new Error(`The update lacks factor ${which} of ${module}.`);
          return { values: toFloat32(tensor, module), shape: tensor.shape };
        };
        const rank = factor('A').shape[0] ?? 0;
        const alpha = lease.grant.alphaPattern[module] ?? lease.grant.alpha;
        addProduct(expected, { a: factor('A').values, b: factor('B').values, rank, scale: alpha / rank }, weight);
      }
      // Version 0 is zero: every start has B = 0, so the merge is the weighted mean of the products sent.
      const size = norm(expected);
      expect(size).toBeGreaterThan(0);
      addProduct(expected, matrix, -1);
      expect(norm(expected) / size, module).toBeLessThan(1e-5);
    }
  });

  it('ends with a message and a code of 1 where the server refuses', { timeout: 60_000 }, async () => {
    const { code, stderr } = await join3('at-no-such-run', 2, ['--run', 'no-such-run']);
    expect(code).toBe(1);
    expect(stderr).toContain('foreign client: unknown-run');
    const ended = await join3('too-late', 2);
    expect(ended.code).toBe(1);
    expect(ended.stderr).toMatch(/foreign client: .*(over|ended)/);
  });
});
