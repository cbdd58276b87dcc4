import { beforeAll, describe, expect, it } from 'vitest';
import { at, rope } from '../../reference/index.ts';
import { ArenaPlan } from '../../runtime/arena.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import {
  ropeBackward,
  ropeForward,
  ropeFrequencies,
  ropeQueryKeyBackward,
  ropeQueryKeyForward,
  ropeTables,
} from './rope.ts';

const PLAIN = { theta: 10_000, scaling: null };

/** Tensors for one head of two elements that are described, not allocated. */
function described(rows: number) {
  const plan = new ArenaPlan(Number.MAX_SAFE_INTEGER);
  return {
    x: plan.tensor('x', [rows, 2]),
    positions: plan.tensor('positions', [rows], 'u32'),
    cos: plan.tensor('cos', [1, 1]),
    sin: plan.tensor('sin', [1, 1]),
  };
}

const shapes: [batch: number, sequence: number, heads: number, headSize: number][] = [
  [1, 1, 1, 2],
  [2, 5, 3, 6],
  [3, 7, 2, 8],
  [1, 17, 4, 64],
  [1, 9, 13, 16],
];

describe('rope', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  it.each(shapes)(
    'turns and turns back: batch %i, sequence %i, %i heads of %i',
    async (batch, sequence, heads, headSize) => {
      const sizes = { heads, headSize };
      const width = heads * headSize;
      const rows = batch * sequence;
      const { cos, sin } = ropeTables(sequence, headSize, PLAIN);
      const data = randomNumbers(headSize).floats(rows * width);
      // Any order, as packed rows and a cache have.
      const positions = Uint32Array.from({ length: rows }, (_, row) => (7 * row + 3) % sequence);
      const table = [sequence, headSize / 2];
      for (const [direction, kernel] of [[1, ropeForward] as const, [-1, ropeBackward] as const]) {
        const { x } = await runKernel(
          gpu,
          {
            x: { shape: [rows, width], data, written: true },
            positions: { shape: [rows], data: positions },
            cos: { shape: table, data: cos },
            sin: { shape: table, data: sin },
          },
          (tensors) => kernel(tensors, sizes),
        );
        const expected = rope(data, cos, sin, { ...sizes, positions }, direction);
        // Two products and their sum: each product half an epsilon, the sum half an epsilon of at most both.
        expectWithin(`direction ${direction}`, x, expected, (i) => {
          const partner = (i % headSize) + headSize / 2 < headSize ? i + headSize / 2 : i - headSize / 2;
          return EPSILON * (Math.abs(at(data, i)) + Math.abs(at(data, partner)));
        });
      }
    },
  );

  it.each([
    [5, 3, 3, 6],
    [19, 9, 2, 64],
    [7, 2, 5, 8],
  ])(
    'turns queries and keys as it turns each alone: %i rows, %i and %i heads of %i',
    async (rows, heads, kvHeads, headSize) => {
      const random = randomNumbers(rows);
      const { cos, sin } = ropeTables(rows, headSize, PLAIN);
      const angles = {
        positions: { shape: [rows], data: Uint32Array.from({ length: rows }, (_, row) => rows - 1 - row) },
        cos: { shape: [rows, headSize / 2], data: cos },
        sin: { shape: [rows, headSize / 2], data: sin },
      };
      const tensor = (count: number) => ({
        shape: [rows, count * headSize],
        data: random.floats(rows * count * headSize),
        written: true,
      });
      const inputs = { q: tensor(heads), k: tensor(kvHeads), ...angles };
      for (const [both, each] of [
        [ropeQueryKeyForward, ropeForward],
        [ropeQueryKeyBackward, ropeBackward],
      ] as const) {
        const { q, k } = await runKernel(gpu, inputs, (tensors) => both(tensors, { heads, kvHeads, headSize }));
        const apart = await runKernel(gpu, inputs, ({ q: x, k: y, ...rest }) => [
          ...each({ x, ...rest }, { heads, headSize }),
          ...each({ x: y, ...rest }, { heads: kvHeads, headSize }),
        ]);
        expect(q).toEqual(apart.q);
        expect(k).toEqual(apart.k);
      }
    },
  );

  it('leaves position 0 as it is', async () => {
    const { cos, sin } = ropeTables(1, 4, PLAIN);
    const data = Float32Array.of(1, 2, 3, 4);
    const inputs = {
      x: { shape: [1, 4], data, written: true },
      positions: { shape: [1], data: new Uint32Array(1) },
      cos: { shape: [1, 2], data: cos },
      sin: { shape: [1, 2], data: sin },
    };
    const { x } = await runKernel(gpu, inputs, (tensors) => ropeForward(tensors, { heads: 1, headSize: 4 }));
    expect(x).toEqual(data);
  });

  it('turns more rows than a dispatch has workgroups in one dimension', async () => {
    const rows = 65_535 * 64 * 8 + 5;
    expect(ropeForward(described(rows), { heads: 1, headSize: 2 })[0]?.workgroups[1]).toBeGreaterThan(1);
    const many = 70_001;
    const { cos, sin } = ropeTables(3, 2, PLAIN);
    const positions = Uint32Array.from({ length: many }, (_, row) => row % 3);
    const data = randomNumbers(1).floats(2 * many);
    const { x } = await runKernel(
      gpu,
      {
        x: { shape: [many, 2], data, written: true },
        positions: { shape: [many], data: positions },
        cos: { shape: [3, 1], data: cos },
        sin: { shape: [3, 1], data: sin },
      },
      (tensors) => ropeForward(tensors, { heads: 1, headSize: 2 }),
    );
    const expected = rope(data, cos, sin, { heads: 1, headSize: 2, positions }, 1);
    expectWithin('x', x, expected, (i) => EPSILON * (Math.abs(at(data, i)) + Math.abs(at(data, i ^ 1))));
  });

  it('makes tables rounded once from float64', () => {
    const { cos, sin } = ropeTables(3000, 64, { theta: 500_000, scaling: null });
    const angle = 2999 * 500_000 ** (-62 / 64);
    expect(cos[2999 * 32 + 31]).toBe(Math.fround(Math.cos(angle)));
    expect(sin[2999 * 32]).toBe(Math.fround(Math.sin(2999)));
  });

  it('stretches all frequencies alike in linear scaling', () => {
    const plain = ropeFrequencies(8, 10_000, null);
    expect([...ropeFrequencies(8, 10_000, { kind: 'linear', factor: 4 })]).toEqual([...plain].map((each) => each / 4));
  });

  it('keeps fast turns, stretches slow ones and goes smoothly between in llama3 scaling', () => {
    // Frequencies 1, 0.1, 0.01, 0.001 make 159.2, 15.92, 1.592 and 0.1592 turns in 1,000 positions.
    const scaling = {
      kind: 'llama3',
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalMaxPositions: 1000,
    } as const;
    const smooth = (10 / (2 * Math.PI) - 1) / 3;
    const expected = [1, 0.1, (1 - smooth) * (0.01 / 8) + smooth * 0.01, 0.001 / 8];
    for (const [i, frequency] of ropeFrequencies(8, 10_000, scaling).entries())
      expect(Math.abs(frequency / (expected[i] ?? 0) - 1)).toBeLessThan(1e-12);
  });

  it('gives the frequencies of Llama 3.2', () => {
    const frequencies = ropeFrequencies(64, 500_000, {
      kind: 'llama3',
      factor: 32,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalMaxPositions: 8192,
    });
    // By the rule as modeling_rope_utils writes it, over wavelengths, in Python's float64.
    const expected: [pair: number, frequency: number][] = [
      [0, 1.0],
      [14, 0.0032114459947525913],
      [15, 0.001290547928209264],
      [16, 0.00042955679655936815],
      [17, 9.70828780262767e-5],
      [18, 1.9461638184831125e-5],
      [31, 9.418306725434909e-8],
    ];
    for (const [pair, frequency] of expected) {
      expect(Math.abs((frequencies[pair] ?? 0) / frequency - 1), `pair ${pair}`).toBeLessThan(1e-12);
    }
  });

  it('refuses an odd head, which has no pairs, and positions of another number of rows', async () => {
    const inputs = (width: number, rows: number) => ({
      x: { shape: [1, width], data: new Float32Array(width), written: true },
      positions: { shape: [rows], data: new Uint32Array(rows) },
      cos: { shape: [1, 1], data: new Float32Array(1) },
      sin: { shape: [1, 1], data: new Float32Array(1) },
    });
    const turn = (width: number, rows: number) =>
      runKernel(gpu, inputs(width, rows), (tensors) => ropeForward(tensors, { heads: 1, headSize: width }));
    await expect(turn(3, 1)).rejects.toMatchObject({ code: 'shape' });
    await expect(turn(2, 2)).rejects.toMatchObject({ code: 'shape' });
  });
});
