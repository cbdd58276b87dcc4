import { describe, expect, it } from 'vitest';
import { exitCodeOf, GATES, type Row, rowsOf, summarise } from './gates.ts';
import type { Timing } from './measure.ts';
import { type AdapterFacts, classOf, type Measurement, type SuiteResult } from './result.ts';

const timing = (name: string, median: number | null, error?: string): Timing => ({
  name,
  median,
  low: median,
  high: median,
  samples: median === null ? 0 : 3,
  firstMs: median,
  ...(error === undefined ? {} : { error }),
});

const measurement = (partial: Partial<Measurement> & Pick<Measurement, 'id' | 'group'>): Measurement => ({
  what: partial.id,
  timings: [timing('weft', 10)],
  flops: 0,
  bytes: 0,
  exps: 0,
  yardsticks: {},
  facts: {},
  ...partial,
});

function resultOf(measurements: Measurement[], adapter: AdapterFacts['class'] = 'lavapipe'): SuiteResult {
  return {
    adapter: { vendor: '', architecture: '', device: '', description: 'test', features: [], class: adapter },
    peaks: { gflops: 100, gigabytes: 10, loadGigabytes: null, f16Gflops: null, gigaexps: 1 },
    libraries: [],
    measurements,
    seconds: 1,
  };
}

const rowOf = (rows: readonly Row[], id: string): Row => {
  const row = rows.find((each) => each.id === id);
  if (!row) throw new RangeError(`No row ${id} among ${rows.map((each) => each.id).join(', ')}.`);
  return row;
};

const never = () => undefined;

/** 100 GFLOP/s allow 1 ms; ours takes 2, the peers 9 and 8. */
const matmul = measurement({
  id: 'matmul-nt-512',
  group: 'matmul',
  flops: 1e8,
  timings: [timing('weft', 2), timing('@tensorflow/tfjs-backend-webgpu 4', 9), timing('@jax-js/jax 0', 8)],
});

const step = (
  facts: Record<string, number>,
  timings = [timing('weft', 1000), timing('@jax-js/jax 0', 6000)],
): Measurement =>
  measurement({ id: 'step-s15-4k', group: 'step', flops: 25e9, timings, facts: { tokens: 256, ...facts } });
const agreed = { lossGap: 1e-6, lossSteps: 4 };

describe('products', () => {
  it('are held to the peak and to the better peer', () => {
    const rows = rowsOf(resultOf([matmul]), never);
    expect(rowOf(rows, 'matmul-nt-512/share')).toMatchObject({ figure: 50, unit: '%', verdict: { kind: 'pass' } });
    expect(rowOf(rows, 'matmul-nt-512/peer')).toMatchObject({ figure: 4, unit: '×', verdict: { kind: 'pass' } });
  });

  it('are held to the best peak, and tell the one that took turns with them', () => {
    const row = rowOf(rowsOf(resultOf([{ ...matmul, yardsticks: { f32: 60 } }]), never), 'matmul-nt-512/share');
    expect(row.figure).toBe(50);
    expect(row.note).toContain('the peak in its turns: 60.0 GFLOP/s');
    const bound = measurement({ id: 'adamw', group: 'pointwise', bytes: 5e7, yardsticks: { copy: 8, exp: 1 } });
    expect(rowOf(rowsOf(resultOf([bound]), never), 'adamw/share')).toMatchObject({
      figure: 50,
      note: expect.stringContaining('the peak in its turns: 8.00 GB/s'),
    });
  });

  it('meet different gates on different adapters', () => {
    const swiftshader = rowsOf(resultOf([matmul], 'swiftshader'), never);
    expect(rowOf(swiftshader, 'matmul-nt-512/peer').verdict).toEqual({ kind: 'missed' });
    expect(rowOf(swiftshader, 'matmul-nt-512/share').verdict).toEqual({ kind: 'pass' });
    const other = rowsOf(resultOf([matmul], 'other-software'), never);
    expect(rowOf(other, 'matmul-nt-512/peer')).toMatchObject({ gate: null, verdict: { kind: 'none' } });
  });

  it('are held to the peer that could run, and fail without any', () => {
    const one = { ...matmul, timings: [timing('weft', 2), timing('a', null, 'too large'), timing('b', 8)] };
    const row = rowOf(rowsOf(resultOf([one]), never), 'matmul-nt-512/peer');
    expect(row.figure).toBe(4);
    expect(row.note).toContain('too large');
    const none = { ...matmul, timings: [timing('weft', 2), timing('a', null, 'too large')] };
    expect(rowOf(rowsOf(resultOf([none]), never), 'matmul-nt-512/peer').verdict.kind).toBe('failed');
  });

  it('fail where ours failed, gate or none', () => {
    for (const group of ['matmul', 'lora', 'attention', 'decode', 'pointwise', 'quantised', 'first-step'] as const) {
      const broken = measurement({ id: 'broken', group, timings: [timing('weft', null, 'lost')] });
      const summary = summarise(rowsOf(resultOf([broken]), never));
      expect(summary.unexplained, group).toBeGreaterThan(0);
      expect(exitCodeOf(summary)).toBe(1);
    }
  });
});

describe('misses', () => {
  const slow = { ...matmul, timings: [timing('weft', 4), timing('a', 8)] };

  it('without an explanation end with 1, with one for this very row and adapter with 0', () => {
    expect(exitCodeOf(summarise(rowsOf(resultOf([slow]), never)))).toBe(1);
    const by = 'README.md#why';
    const explained = rowsOf(resultOf([slow]), () => by);
    expect(rowOf(explained, 'matmul-nt-512/peer').verdict).toEqual({ kind: 'explained', by });
    expect(summarise(explained)).toMatchObject({ explained: 2, unexplained: 0 });
    expect(exitCodeOf(summarise(explained))).toBe(0);
    const elsewhere = rowsOf(resultOf([slow]), (adapter) => (adapter === 'gpu' ? by : undefined));
    expect(exitCodeOf(summarise(elsewhere))).toBe(1);
  });

  it('stay a pass where an explanation is no longer needed', () => {
    const rows = rowsOf(resultOf([matmul]), () => 'README.md#why');
    expect(rowOf(rows, 'matmul-nt-512/share').verdict).toEqual({ kind: 'pass' });
  });
});

describe('steps', () => {
  it('are counted in tokens, against peers, and as a share of the peak', () => {
    const rows = rowsOf(resultOf([step(agreed)]), never);
    expect(rowOf(rows, 'step-s15-4k/tokens').figure).toBe(256);
    expect(rowOf(rows, 'step-s15-4k/peer')).toMatchObject({ figure: 6, verdict: { kind: 'pass' } });
    expect(rowOf(rows, 'step-s15-4k/mfu')).toMatchObject({ figure: 25, verdict: { kind: 'pass' } });
    expect(rowOf(rows, 'step-s15-4k/losses').verdict).toEqual({ kind: 'pass' });
  });

  it('fail, whatever explains it, where losses differ, are no numbers, were hardly compared or not at all', () => {
    const facts = [
      { lossGap: 2e-3, lossSteps: 4 },
      { lossGap: Number.NaN, lossSteps: 4 },
      { lossGap: 0, lossSteps: 1 },
      {},
    ];
    for (const each of facts) {
      const rows = rowsOf(resultOf([step(each)]), () => 'README.md#why');
      expect(rowOf(rows, 'step-s15-4k/losses').verdict.kind, JSON.stringify(each)).toBe('failed');
      expect(exitCodeOf(summarise(rows))).toBe(1);
    }
  });

  it('may submit three times and once for each tenth of a second', () => {
    const submits = (count: number) =>
      rowOf(
        rowsOf(resultOf([step({ ...agreed, submits: count, encodeMs: 1, inspectedMs: 950 })]), never),
        'step-s15-4k/submits',
      );
    expect(submits(13).verdict).toEqual({ kind: 'pass' });
    expect(submits(14).verdict).toEqual({ kind: 'missed' });
  });

  it('are asked for little encoding on real GPUs only', () => {
    const busy = step({ ...agreed, submits: 3, encodeMs: 200, inspectedMs: 1000 });
    const verdict = (adapter: AdapterFacts['class']) =>
      rowOf(rowsOf(resultOf([busy], adapter), never), 'step-s15-4k/encode').verdict.kind;
    expect(verdict('gpu')).toBe('missed');
    expect(verdict('lavapipe')).toBe('none');
  });
});

describe('passes', () => {
  it('are held to what bounds them: copying, or exponentials', () => {
    // 10 GB/s allow 6 ms for 60 MB; 1 Gexp/s allow 8 ms for 8 million.
    const copying = measurement({ id: 'norm', group: 'pointwise', bytes: 6e7 });
    const computing = measurement({ id: 'swiglu', group: 'pointwise', bytes: 6e7, exps: 8e6 });
    const rows = rowsOf(resultOf([copying, computing]), never);
    expect(rowOf(rows, 'norm/share')).toMatchObject({ figure: 60, verdict: { kind: 'pass' } });
    expect(rowOf(rows, 'swiglu/share').figure).toBe(80);
    expect(rowOf(rows, 'swiglu/share').what).toContain('exp rate');
  });
});

describe('quantised weights', () => {
  it('are held to f32 of the same product', () => {
    const product = (id: string, median: number) =>
      measurement({ id, group: 'quantised', flops: 1e8, timings: [timing('weft', median)] });
    const rows = rowsOf(
      resultOf([product('weights-nt-f32', 6), product('weights-nt-q4', 10), product('weights-nn-q4', 10)]),
      never,
    );
    expect(rowOf(rows, 'weights-nt-q4/f32')).toMatchObject({ figure: 60, verdict: { kind: 'missed' } });
    expect(rowOf(rows, 'weights-nn-q4/f32').verdict.kind).toBe('failed');
  });
});

describe('gates', () => {
  it('are those of the issue', () => {
    const of = (name: keyof typeof GATES) => {
      const { lavapipe, swiftshader, gpu } = GATES[name].by;
      return [lavapipe?.gate, swiftshader?.gate, gpu?.gate];
    };
    expect(of('matmulShare')).toEqual([30, 50, 40]);
    expect(of('matmulPeer')).toEqual([3.5, 4.5, 1.5]);
    expect(of('stepS15')).toEqual([5, 5, 3]);
    expect(of('stepS026')).toEqual([5, 6, 3]);
    expect(of('mfu')).toEqual([20, 35, 25]);
    expect(of('pointwiseShare')).toEqual([60, 60, 70]);
    expect(of('quantised')).toEqual([70, 70, 90]);
    expect(of('firstStep')).toEqual([10, 20, 3]);
    expect(of('encodeShare')).toEqual([undefined, undefined, 10]);
  });

  it('belong to adapters by their names', () => {
    const names = { vendor: '', architecture: '', device: '', description: '' };
    expect(classOf({ ...names, description: 'llvmpipe (LLVM 15.0.6, 256 bits)' }, true)).toBe('lavapipe');
    expect(classOf({ ...names, vendor: 'google', architecture: 'swiftshader' }, true)).toBe('swiftshader');
    expect(classOf({ ...names, vendor: 'nvidia', description: 'NVIDIA H100 80GB HBM3' }, false)).toBe('gpu');
    expect(classOf({ ...names, description: 'Microsoft Basic Render Driver' }, true)).toBe('other-software');
  });
});
