import { describe, expect, it } from 'vitest';
import {
  elementsPerRow,
  parseSparseTensorName,
  readSparse,
  sparseBytes,
  sparseColumns,
  sparseTensorName,
  writeSparse,
} from './sparse.ts';

const target = { module: 'model.layers.0.self_attn.q_proj', out: 40, in: 30 };
const spec = { density: 0.1, seed: 'run' };

describe('the places of a sparse update', () => {
  it.each([
    [1, 1, 1],
    [7, 5, 0.01],
    [40, 30, 0.1],
    [13, 17, 0.6],
    [9, 8, 1],
  ])('are distinct and ascending in every row: [%i, %i] at %f', (out, inner, density) => {
    const perRow = elementsPerRow({ density }, inner);
    const columns = sparseColumns({ density, seed: 's' }, { module: 'm', out, in: inner });
    expect(columns).toHaveLength(out * perRow);
    for (let row = 0; row < out; row += 1) {
      const own = [...columns.subarray(row * perRow, (row + 1) * perRow)];
      expect(own).toEqual([...new Set(own)].sort((a, b) => a - b));
      expect(own.every((column) => column < inner)).toBe(true);
    }
    expect(perRow).toBe(density === 1 ? inner : Math.max(1, Math.round(density * inner)));
  });

  it('follow from seed and module alone', () => {
    expect(sparseColumns(spec, target)).toEqual(sparseColumns(spec, target));
    expect(sparseColumns({ ...spec, seed: 'other' }, target)).not.toEqual(sparseColumns(spec, target));
    expect(sparseColumns(spec, { ...target, module: 'other' })).not.toEqual(sparseColumns(spec, target));
    // What other implementations are held to.
    expect([...sparseColumns(spec, target).subarray(0, 9)]).toMatchInlineSnapshot(`
      [
        5,
        14,
        27,
        5,
        9,
        26,
        1,
        7,
        22,
      ]
    `);
  });

  it('fall on every column alike', () => {
    const out = 20_000;
    const columns = sparseColumns(spec, { module: 'm', out, in: 30 });
    const counts = new Array<number>(30).fill(0);
    for (const column of columns) counts[column] = (counts[column] ?? 0) + 1;
    // Binomial: 20,000 draws of p = 0.1 have a standard deviation of 42.
    for (const count of counts) expect(Math.abs(count - 2000)).toBeLessThan(5 * 42.5);
  });
});

describe('files of sparse updates', () => {
  const update = { ...target, perRow: 3, values: Float32Array.from({ length: 120 }, (_, i) => i - 60) };

  it('come back as they were written', () => {
    const bytes = writeSparse([update]);
    expect(readSparse(bytes, spec, [target])).toEqual(new Map([[target.module, update]]));
    expect(bytes.length - sparseBytes(spec, [target])).toBeLessThan(400);
    expect(parseSparseTensorName(sparseTensorName(target.module))).toBe(target.module);
    expect(parseSparseTensorName('base_model.model.q_proj.lora_A.weight')).toBeNull();
  });

  it.each([
    ['another density', [update], { density: 0.2 }, [target], /\[40,3\] where \[40,6\]/],
    ['no such matrix', [update], spec, [target, { ...target, module: 'k_proj' }], /k_proj.sparse_delta is missing/],
    ['a matrix too many', [update, { ...update, module: 'k_proj' }], spec, [target], /k_proj.*no adapted matrix/],
    ['NaN', [{ ...update, values: update.values.map(() => Number.NaN) }], spec, [target], /NaN/],
  ])('are refused with %s', (_what, updates, density, targets, message) => {
    expect(() => readSparse(writeSparse(updates), density, targets)).toThrow(message);
  });
});
