import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type LoraFactors, writeFactors, writeSafetensors } from '@weft/formats';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { workerPath } from '../worker-path.ts';
import { lazyFactors } from './lazy-factors.ts';
import { TensorFile } from './tensor-file.ts';
import type { MergeTask } from './worker.ts';

let folder: string;
const at = (name: string): string => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-tensors-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const write = (name: string, ...values: number[]): string => {
  const data = Float64Array.from(values);
  writeFileSync(at(name), writeSafetensors([{ name: 'x', dtype: 'F64', shape: [values.length], data }]));
  return at(name);
};

describe('TensorFile', () => {
  it('reads tensors by name, and shares the headers of equal files', () => {
    const one = new TensorFile(write('one', 1, 2, 3));
    const two = new TensorFile(write('two', 4, 5, 6));
    expect([...one.float64('x')]).toEqual([1, 2, 3]);
    expect([...two.float64('x')]).toEqual([4, 5, 6]);
    expect(two.header).toBe(one.header);
    expect(new TensorFile(write('three', 7)).header).not.toBe(one.header);
    expect(one.has('y')).toBe(false);
    expect(() => one.read('y')).toThrow(/has no tensor y/);
  });

  it('says so when the file has changed since its header was read', () => {
    const changed = expect.objectContaining({ code: 'file-changed' });
    const grown = new TensorFile(write('grown', 1, 2));
    write('grown', 1, 2, 3);
    expect(() => grown.read('x')).toThrow(changed);
    const touched = new TensorFile(write('touched', 1));
    utimesSync(at('touched'), 1, 1);
    expect(() => touched.read('x')).toThrow(changed);
    const gone = new TensorFile(write('gone', 1));
    rmSync(at('gone'));
    expect(() => gone.read('x')).toThrow(expect.objectContaining({ code: 'ENOENT' }));
  });

  it('refuses what is cut off', () => {
    writeFileSync(at('cut'), new Uint8Array(4));
    expect(() => new TensorFile(at('cut'))).toThrow(expect.objectContaining({ code: 'safetensors-truncated' }));
  });
});

describe('lazyFactors', () => {
  it('reads when it is asked, keeps the last few, and reads again what it has dropped', () => {
    const read: string[] = [];
    const updates = Array.from({ length: 6 }, (_, i) =>
      lazyFactors({ out: 1, in: 1, rank: 1, scale: 1 }, (factor) => {
        read.push(`${i}${factor}`);
        return Float32Array.of(i);
      }),
    );
    expect(read).toEqual([]);
    for (const update of updates)
      expect([update.a[0], update.b[0], update.a[0]]).toEqual(new Array(3).fill(update.b[0]));
    expect(read).toEqual(updates.flatMap((_, i) => [`${i}a`, `${i}b`]));
    expect([updates[5]?.a[0], updates[0]?.a[0]]).toEqual([5, 0]);
    expect(read.slice(12)).toEqual(['0a']);
  });
});

describe('a merge process', () => {
  it('merges more uploads than a process may have files open', () => {
    const [out, inner, rank, uploads] = [8, 6, 2, 300];
    const matrix = { module: 'model.layers.0.self_attn.q_proj', out, in: inner };
    const grant = { rank, alpha: 2 * rank, rankPattern: {}, alphaPattern: {}, targets: ['q_proj' as const] };
    const factors = (i: number): LoraFactors => ({
      ...matrix,
      rank,
      alpha: 2 * rank,
      scale: 2,
      a: new Float32Array(rank * inner).fill(1 + i),
      b: new Float32Array(out * rank).fill(1),
    });
    const paths = Array.from({ length: uploads }, (_, i) => {
      writeFileSync(at(`upload-${i}`), writeFactors([factors(i)]));
      writeFileSync(at(`start-${i}`), writeFactors([factors(0)]));
      const grants = { grant, startGrant: grant, sparse: null };
      return { path: at(`upload-${i}`), startPath: at(`start-${i}`), ...grants, weight: 1 / uploads, clip: 1 };
    });
    const task: MergeTask = {
      strategy: 'flexlora-carry',
      momentum: 0,
      global: null,
      matrices: [matrix],
      uploads: paths,
      watched: [],
      sparse: null,
      keepElements: false,
      stateRank: 4,
      ranks: [2],
      output: at('merged'),
    };
    writeFileSync(at('task.json'), JSON.stringify(task));
    const program = `
      import { readFileSync } from 'node:fs';
      import { mergeMatrices } from ${JSON.stringify(pathToFileURL(workerPath('merge-worker')).href)};
      const { spectra } = mergeMatrices(JSON.parse(readFileSync(${JSON.stringify(at('task.json'))}, 'utf8')));
      console.log(JSON.stringify(spectra[0].sigma));`;
    writeFileSync(at('program.mjs'), program);
    const output = execFileSync('sh', ['-c', 'ulimit -n 128 && exec "$0" "$1"', process.execPath, at('program.mjs')]);
    // Mean of (1 + i) − 1 in each of the 2 rows of A, B all ones: rank 1 of Frobenius norm mean · s · 2 · √(out · in).
    expect(JSON.parse(String(output))).toEqual([
      expect.closeTo(((uploads - 1) / 2) * 2 * rank * Math.sqrt(out * inner), 6),
    ]);
  });
});
