// `weft merge` of many adapters, as a process of its own: what it holds does not grow with what is merged.
import { execFile } from 'node:child_process';
import { linkSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type LoraFactors, writeAdapter } from '@weft/formats';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const WEFT = fileURLToPath(new URL('../../dist/weft.js', import.meta.url));
const WEIGHTS = 'adapter_model.safetensors';
const ADAPTERS = 200;
/** Wide and low: many bytes for little work. 24 matrices of 131 kB at rank 8. */
const [MATRICES, OUT, IN, RANK] = [24, 8, 4096, 8] as const;

let folder: string;
const at = (...names: string[]): string => join(folder, ...names);
const adapters = (count: number): string[] => Array.from({ length: count }, (_, i) => at(`adapter-${i}`));

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-merge-scale-'));
  const matrices = Array.from({ length: MATRICES }, (_, m): LoraFactors => {
    const values = (length: number) => Float32Array.from({ length }, (_, i) => Math.sin(m + 1 + i * (1 + m / 7)));
    const module = `model.layers.${m}.mlp.down_proj`;
    return { module, out: OUT, in: IN, rank: RANK, alpha: RANK, scale: 1, a: values(RANK * IN), b: values(OUT * RANK) };
  });
  const files = Object.entries(writeAdapter({ baseModel: 'some/model', rslora: false, matrices: mapOf(matrices) }));
  for (const [i, path] of adapters(ADAPTERS).entries()) {
    mkdirSync(path);
    // One file under many names is read as many files.
    for (const [name, content] of files) {
      if (i === 0) writeFileSync(join(path, name), content);
      else linkSync(at('adapter-0', name), join(path, name));
    }
  }
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const mapOf = (matrices: readonly LoraFactors[]) => new Map(matrices.map((each) => [each.module, each]));

/** The most memory a merge of the first `count` adapters takes, in bytes, after it is done. */
async function peakOf(count: number): Promise<number> {
  const out = at(`merged-${count}`);
  // Linux counts in maxRSS what the parent had when it started the process; its status file does not.
  const tell = `import { existsSync, readFileSync } from 'node:fs';
    process.on('exit', () => {
      const status = '/proc/self/status';
      const kB = existsSync(status) ? /VmHWM:\\s+(\\d+)/.exec(readFileSync(status, 'utf8'))[1] : process.resourceUsage().maxRSS;
      process.stderr.write('peak ' + kB);
    });`;
  const args = ['merge', '--strategy', 'flexlora', '--rank', '8', '--jobs', '1', '--out', out, ...adapters(count)];
  const { stderr } = await promisify(execFile)(process.execPath, [
    `--import=data:text/javascript,${encodeURIComponent(tell)}`,
    WEFT,
    ...args,
  ]);
  expect(statSync(join(out, WEIGHTS)).size).toBeGreaterThan(4 * MATRICES * RANK * (OUT + IN));
  return 1024 * Number(/peak (\d+)/.exec(stderr)?.[1]);
}

describe('weft merge', () => {
  it('of two hundred adapters holds no two hundred adapters', async () => {
    const total = ADAPTERS * statSync(at('adapter-0', WEIGHTS)).size;
    expect(total).toBeGreaterThan(600e6);
    const few = await peakOf(5);
    const many = await peakOf(ADAPTERS);
    expect(few).toBeGreaterThan(20e6);
    // What the collector lets lie before it sweeps, and no more.
    expect(many - few).toBeLessThan(total / 6);
  });
});
