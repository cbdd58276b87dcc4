import { describe, expect, it } from 'vitest';
import { reasonToLeaveOut } from './cases/context.ts';
import { checkProduct } from './cases/matmul.ts';
import { lossGap } from './cases/steps.ts';
import { type Library, transposed } from './peers/peer.ts';
import { batchOf, modelFlops, stepData, WORKLOADS } from './workload.ts';

describe('workloads', () => {
  it('are the same every time, and learn from every token', () => {
    const [data, again] = [stepData(WORKLOADS.tiny), stepData(WORKLOADS.tiny)];
    expect(again).toEqual(data);
    const { ids, targets, querySpans, keySpans, positions, targetTokens } = batchOf(data);
    expect(targetTokens).toBe(32);
    // Within a row a target is the next token.
    expect([...targets.subarray(0, 15)]).toEqual([...ids.subarray(1, 16)]);
    expect(positions[17]).toBe(1);
    expect([...querySpans.subarray(34, 36)]).toEqual([16, 17]);
    expect([...keySpans.subarray(34, 36)]).toEqual([17, 31]);
  });

  it('count what a step computes', () => {
    // One block, one row of one token: every product by hand.
    const { config } = WORKLOADS.tiny;
    const one = { ...WORKLOADS.tiny, config: { ...config, layers: 1 }, batch: 1, sequence: 1, rank: 4 };
    const base = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48;
    const baseToInput = base - (32 * 32 + 2 * 32 * 16);
    const lora = 4 * (64 + 2 * 48 + 64 + 3 * 80);
    const loraToInput = 4 * (64 + 3 * 80) + 4 * (32 + 2 * 16);
    const attention = 2 * 3 * 32;
    const head = 2 * 32 * 64;
    expect(modelFlops(one)).toBe(2 * (base + baseToInput + 2 * lora + loraToInput + attention + head));
  });
});

describe('losses', () => {
  it('are compared step by step, a NaN as a difference', () => {
    const losses = new Map([
      ['weft', [3, 2, 1]],
      ['a', [3, 2.5]],
    ]);
    expect(lossGap(losses, 'weft')).toEqual({ lossGap: 0.5, lossSteps: 2 });
    losses.set('b', [Number.NaN]);
    expect(lossGap(losses, 'weft')).toEqual({ lossGap: Number.POSITIVE_INFINITY, lossSteps: 1 });
    expect(lossGap(new Map([['weft', [3]]]), 'weft')).toBeNull();
  });
});

describe('products', () => {
  it('are refused where an element is wrong, missing or no number', () => {
    const [a, b] = [Float32Array.of(1, 2, 3, 4), Float32Array.of(5, 6, 7, 8)];
    const shape = { rows: 2, columns: 2, inner: 2 };
    const [nn, nt] = [Float32Array.of(19, 22, 43, 50), Float32Array.of(17, 23, 39, 53)];
    expect(() => checkProduct({ kind: 'NN', ...shape }, a, b, nn)).not.toThrow();
    expect(() => checkProduct({ kind: 'NT', ...shape }, a, b, nt)).not.toThrow();
    expect(() => checkProduct({ kind: 'NT', ...shape }, a, b, nn)).toThrow('wrong');
    expect(() => checkProduct({ kind: 'NT', ...shape }, a, b, Float32Array.of(17, 23, 39, Number.NaN))).toThrow(
      'wrong',
    );
    expect(() => checkProduct({ kind: 'NT', ...shape }, a, b, nt.subarray(1))).toThrow('3 elements');
  });

  it('of another layout are laid out right', () => {
    expect(transposed(Float32Array.of(1, 2, 3, 4, 5, 6), 2, 3)).toEqual(Float32Array.of(1, 4, 2, 5, 3, 6));
  });
});

describe('a peer', () => {
  const peer = (gflops: number | null) => ({ library: {} as Library, gflops });
  const options = (quick: boolean) => ({ quick, only: [], deadlineSeconds: 1 });

  it('is left out where one run is beyond the budget, or, in a quick run, where it cannot be the better one', () => {
    const [slow, fast] = [peer(1), peer(4)];
    const full = { peers: [slow, fast], options: options(false) };
    expect(reasonToLeaveOut(full, slow, 5e9, 10_000)).toBeUndefined();
    expect(reasonToLeaveOut(full, slow, 20e9, 10_000)).toContain('1.00 GFLOP/s');
    const quick = { peers: [slow, fast], options: options(true) };
    expect(reasonToLeaveOut(quick, slow, 5e9, 10_000)).toContain('quick');
    expect(reasonToLeaveOut(quick, fast, 5e9, 10_000)).toBeUndefined();
    expect(reasonToLeaveOut(quick, peer(null), 5e9, 10_000)).toBeUndefined();
  });
});
