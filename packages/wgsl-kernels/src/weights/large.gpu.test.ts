// A matrix that really is larger than a binding may be at default limits: Qwen2's vocabulary in f32, 256 wide.
import { beforeAll, describe, expect, it } from 'vitest';
import { embeddingForward } from '../kernels/embedding/embedding.ts';
import { linearCrossEntropy } from '../kernels/linear-cross-entropy/linear-cross-entropy.ts';
import { weightNN, weightNT } from '../kernels/matmul/weight-matmul.ts';
import { at, crossEntropy, matmul, matmulMagnitude } from '../reference/index.ts';
import { ArenaPlan, SLAB_BYTES } from '../runtime/arena.ts';
import type { Gpu } from '../runtime/device.ts';
import { PlanRecorder } from '../runtime/plan.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers } from '../testing/index.ts';
import { largest, rowsOf } from '../testing/weights.ts';
import { bindWeight, planWeight, writeWeightRows } from './weight-matrix.ts';

const [VOCABULARY, WIDTH, ROWS] = [151_936, 256, 3];

/** Numbers in [−1, 1) that differ from row to row; quicker than the generator of the other tests. */
function scattered(count: number): Float32Array {
  const values = new Float32Array(count);
  for (let i = 0; i < count; i += 1) values[i] = (Math.imul(i + 1, 0x9e37_79b1) ^ (i >>> 7)) / 2 ** 31;
  return values;
}

describe('a weight larger than a binding', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  it('is embedded, multiplied both ways and scored part by part', async () => {
    const table = scattered(VOCABULARY * WIDTH);
    const random = randomNumbers(3);
    const [x, dy] = [random.floats(ROWS * WIDTH), random.floats(ROWS * VOCABULARY)];
    expect(table.byteLength).toBeGreaterThan(SLAB_BYTES);
    const limit = gpu.limits.maxStorageBufferBindingSize;
    const plan = new ArenaPlan(limit);
    const weightRefs = planWeight(plan, 'table', [VOCABULARY, WIDTH], 'f32', limit);
    const refs = {
      ids: plan.tensor('ids', [ROWS], 'u32'),
      labels: plan.tensor('labels', [ROWS], 'i32'),
      x: plan.tensor('x', [ROWS, WIDTH]),
      dy: plan.tensor('dy', [ROWS, VOCABULARY]),
      embedded: plan.tensor('embedded', [ROWS, WIDTH]),
      y: plan.tensor('y', [ROWS, VOCABULARY]),
      dx: plan.tensor('dx', [ROWS, WIDTH]),
      logits: plan.tensor('logits', [64, VOCABULARY]),
      lossRows: plan.tensor('lossRows', [ROWS]),
      normaliser: plan.tensor('normaliser', [1]),
    };
    const arena = await plan.allocate(gpu);
    const weight = bindWeight(weightRefs, arena);
    expect(weight.parts.map(({ firstRow, rows }) => [firstRow, rows])).toEqual([
      [0, 131_072],
      [131_072, 20_864],
    ]);
    const piece = 20_000;
    for (let row = 0; row < VOCABULARY; row += piece) {
      writeWeightRows(gpu, weight, row, table.subarray(row * WIDTH, Math.min(row + piece, VOCABULARY) * WIDTH));
    }
    const ids = Uint32Array.of(131_071, 131_072, VOCABULARY - 1);
    const labels = Int32Array.of(5, 131_072, -100);
    const t = arena.get.bind(arena);
    arena.write(t(refs.ids), ids);
    arena.write(t(refs.labels), labels);
    arena.write(t(refs.x), x);
    arena.write(t(refs.dy), dy);
    arena.write(t(refs.normaliser), Float32Array.of(1));
    const recorder = new PlanRecorder(gpu);
    recorder.call(
      ...embeddingForward({ ids: t(refs.ids), table: weight, out: t(refs.embedded) }),
      ...weightNT({ x: t(refs.x), w: weight, y: t(refs.y) }),
      ...weightNN({ dy: t(refs.dy), w: weight, dx: t(refs.dx) }),
      ...linearCrossEntropy({
        hidden: t(refs.x),
        head: weight,
        labels: t(refs.labels),
        logits: t(refs.logits),
        lossRows: t(refs.lossRows),
        normaliser: t(refs.normaliser),
      }),
    );
    const calls = await recorder.finish();
    const results = async () => {
      calls.run();
      const { embedded, y, dx, lossRows } = refs;
      return await Promise.all([embedded, y, dx, lossRows].map((ref) => arena.read(t(ref))));
    };
    const [first, second] = [await results(), await results()];
    for (const [i, values] of second.entries()) expect(values.every((value, j) => value === first[i]?.[j])).toBe(true);
    const [embedded, y, dx, loss] = first;
    if (!embedded || !y || !dx || !loss) throw new Error('Four tensors were read.');

    expect(embedded).toEqual(rowsOf(table, ids, WIDTH));
    // Bounds as in weight-matmul.gpu.test.ts, the second part of dx added to the first.
    const nt = { rows: ROWS, columns: VOCABULARY, inner: WIDTH };
    const logits = matmul('NT', x, table, nt);
    const sizes = matmulMagnitude('NT', x, table, nt);
    expectWithin('y', y, logits, (i) => EPSILON * (Math.sqrt(WIDTH) + 1.5) * at(sizes, i));
    const nn = { rows: ROWS, columns: WIDTH, inner: VOCABULARY };
    const dxSizes = matmulMagnitude('NN', dy, table, nn);
    expectWithin('dx', dx, matmul('NN', dy, table, nn), (i) => {
      return EPSILON * (Math.sqrt(VOCABULARY) + 2) * at(dxSizes, i);
    });
    // As in linear-cross-entropy.gpu.test.ts.
    expectWithin('loss', loss, crossEntropy(logits, labels, 1).loss, (row) => {
      if (at(labels, row) < 0) return 0;
      const most = largest(VOCABULARY, (v) => at(sizes, row * VOCABULARY + v));
      const logit = largest(VOCABULARY, (v) => Math.abs(at(logits, row * VOCABULARY + v)));
      const product = Math.sqrt(WIDTH) / 2 + 1;
      return EPSILON * (2 * product * most + 8 * logit + Math.sqrt(VOCABULARY) / 2 + 10);
    });
    calls.destroy();
    arena.destroy();
  });
});
