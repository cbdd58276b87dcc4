// `weft merge` as its users meet it: PEFT folders in, a PEFT folder out, held to dense sums and decompositions.

import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type LoraAdapter,
  type LoraFactors,
  loraTargets,
  parseModelConfig,
  parsePeftTensorName,
  readSafetensors,
  toFloat32,
  writeAdapter,
} from '@weft/formats';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import {
  type Dense,
  denseSvd,
  distance,
  norm,
  productOf,
  randomFactors,
  sum,
} from '../../../../packages/flexlora/src/testing/dense.ts';
import { createProgram, run } from '../program.ts';
import { lossByRank } from './merge/report.ts';
import { registerMerge } from './merge.ts';

const model = fileURLToPath(new URL('../../../../assets/models/stories260K/', import.meta.url));
const adapted = loraTargets(parseModelConfig(await readFile(join(model, 'config.json'), 'utf8')));
const ofLayers = (...layers: number[]) =>
  adapted.filter(({ module }) => layers.some((layer) => module.startsWith(`model.layers.${layer}.`)));
/** The outer layers of stories260K, for the numbers: all its shapes twice. */
const targets = ofLayers(0, 4);
/** One layer, for the rest. */
const layer = ofLayers(0);

let folder: string;
const at = (...names: string[]) => join(folder, ...names);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weft-merge-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = 0;
});

/** Runs the command in this process. */
async function merge(...args: string[]) {
  const streams = { out: '', err: '' };
  const catching = (name: 'out' | 'err') => (text: string | Uint8Array) => {
    streams[name] += String(text);
    return true;
  };
  vi.spyOn(process.stdout, 'write').mockImplementation(catching('out'));
  vi.spyOn(process.stderr, 'write').mockImplementation(catching('err'));
  process.exitCode = 0;
  const exitCode = await run(createProgram([registerMerge], 'test'), ['merge', ...args]);
  vi.restoreAllMocks();
  return { exitCode, ...streams };
}

async function document(...args: string[]) {
  const { exitCode, out, err } = await merge(...args, '--json');
  expect(err).toBe('');
  expect(exitCode).toBe(0);
  return JSON.parse(out);
}

interface Recipe {
  readonly name: string;
  readonly rank: number;
  /** α of a matrix. */
  readonly alpha: (module: string) => number;
  readonly rslora?: boolean;
  readonly baseModel?: string;
  readonly change?: (factors: LoraFactors) => LoraFactors;
}

/** Writes a PEFT folder of random factors, and returns each product in float64. */
async function adapterFolder(recipe: Recipe, matrices = layer): Promise<Map<string, Dense>> {
  const { name, rank, alpha, rslora = false, baseModel = 'karpathy/stories260K', change = (same) => same } = recipe;
  const factors = matrices.map(({ module, out, in: columns }): LoraFactors => {
    const scale = alpha(module) / (rslora ? Math.sqrt(rank) : rank);
    const { a, b } = randomFactors({ out, in: columns, rank }, name, module);
    return change({
      module,
      out,
      in: columns,
      rank,
      alpha: alpha(module),
      scale,
      a: Float32Array.from(a),
      b: Float32Array.from(b),
    });
  });
  const adapter: LoraAdapter = { baseModel, rslora, matrices: new Map(factors.map((each) => [each.module, each])) };
  await mkdir(at(name), { recursive: true });
  for (const [file, content] of Object.entries(writeAdapter(adapter))) await writeFile(at(name, file), content);
  return new Map(factors.map((each) => [each.module, productOf(each)]));
}

const plain = (name: string, rank = 4, more: Partial<Recipe> = {}): Recipe => ({
  name,
  rank,
  alpha: () => 2 * rank,
  ...more,
});

/** The products of an adapter folder, read by its tensors and its one rank and alpha. */
async function productsIn(path: string, rank: number): Promise<Map<string, Dense>> {
  const config = JSON.parse(await readFile(join(path, 'adapter_config.json'), 'utf8'));
  expect(config).toMatchObject({ peft_type: 'LORA', r: rank, rank_pattern: {}, alpha_pattern: {}, use_rslora: false });
  const { tensors } = readSafetensors(await readFile(join(path, 'adapter_model.safetensors')));
  const products = new Map<string, Dense>();
  for (const [name, a] of tensors) {
    const parsed = parsePeftTensorName(name);
    if (parsed?.factor !== 'A') continue;
    const b = tensors.get(name.replace('lora_A', 'lora_B'));
    if (!b) throw new Error(`${name} has no lora_B`);
    const [rows = 0, columns = 0] = a.shape;
    const [out = 0, inner = 0] = b.shape;
    expect([rows, inner], name).toEqual([rank, rank]);
    const scale = config.lora_alpha / config.r;
    products.set(
      parsed.module,
      productOf({ out, in: columns, rank, scale, a: toFloat32(a, name), b: toFloat32(b, name) }),
    );
  }
  return products;
}

const get = (products: ReadonlyMap<string, Dense>, module: string): Dense => {
  const product = products.get(module);
  if (!product) throw new Error(`no ${module}`);
  return product;
};

describe('--report', () => {
  it('writes what the merge did as JSON and as a page that stands alone', async () => {
    await adapterFolder(plain('report-a', 4));
    await adapterFolder(plain('report-b', 8));
    const args = ['--strategy', 'flexlora', '--rank', '6', '--out', at('reported'), '--report', at('report')];
    const result = await document(...args, at('report-a'), at('report-b'));
    const report = JSON.parse(await readFile(join(at('report'), 'report.json'), 'utf8'));
    expect(report).toMatchObject({ strategy: 'flexlora', rank: 6, adapters: result.adapters });
    expect(report.modules).toHaveLength(layer.length);
    for (const [i, each] of report.modules.entries()) {
      expect(each.lost).toBe(result.modules[i].truncationError);
      expect(each.sigma).toHaveLength(12);
      // The first directions hold what those beyond do not lose.
      expect(Math.sqrt(1 - each.energyByRank[5])).toBeCloseTo(each.lost, 10);
      expect(each.cosineToMean).toHaveLength(2);
    }
    const page = await readFile(join(at('report'), 'report.html'), 'utf8');
    for (const rank of [4, 8])
      expect(page).toMatch(new RegExp(`<td class="number">${rank}</td><td class="number">[\\d.]+ %`));
    expect(page).toContain('>stands out</th>');
    expect(page).toContain('<h1>2 adapters merged by flexlora at rank 6</h1>');
    expect(page.match(/<polyline/g)).toHaveLength(2 * (layer.length + 1));
    expect(page).not.toMatch(/<script|https?:|NaN|undefined/);
    for (const { module } of report.modules) expect(page).toContain(`<td>${module}</td>`);
    const again = await merge(...args.slice(0, 5), at('reported-2'), '--report', at('report'), at('report-a'));
    expect(again.exitCode).toBe(1);
    expect(again.err).toMatch(/report is not empty; choose a new folder for --report/);
  });

  it('says of every rank what it loses', () => {
    expect(lossByRank([])).toEqual([0]);
    expect(lossByRank([4, 3, 0])).toEqual([1, 0.6, 0, 0]);
  });
});

describe('weft merge', () => {
  it('equals the dense truncation at every rank, for ranks 1 to 30, mixed alphas and weights', async () => {
    const recipes: (Recipe & { weight: number })[] = [
      { name: 'a', rank: 1, weight: 10, alpha: () => 16 },
      { name: 'b', rank: 4, weight: 250, alpha: () => 8 },
      { name: 'c', rank: 8, weight: 40, alpha: () => 5, rslora: true },
      { name: 'd', rank: 16, weight: 125.5, alpha: (module) => (module.endsWith('q_proj') ? 48 : 12) },
      { name: 'e', rank: 30, weight: 75, alpha: () => 60 },
    ];
    const total = recipes.reduce((all, { weight }) => all + weight, 0);
    const inputs = await Promise.all(
      recipes.map(async (recipe) => [recipe.weight / total, await adapterFolder(recipe, targets)] as const),
    );
    const expected = targets.map(({ module }) => {
      const whole = sum(inputs.map(([share, products]) => [share, get(products, module)] as const));
      return { module, whole, svd: denseSvd(whole) };
    });
    for (const rank of [1, 4, 16, 30, 64]) {
      const out = at(`merged-${rank}`);
      const folders = recipes.map(({ name, weight }) => `${at(name)}=${weight}`);
      const result = await document('--strategy', 'flexlora', '--rank', String(rank), '--out', out, ...folders);
      expect(result).toMatchObject({ out, rank, strategy: 'flexlora', global: null });
      expect(result.adapters).toEqual(
        recipes.map(({ name, weight, rank: own }) => ({
          path: at(name),
          weight,
          share: expect.closeTo(weight / total, 12),
          ranks: [own],
        })),
      );
      expect(result.modules).toHaveLength(targets.length);
      const merged = await productsIn(out, rank);
      expect(merged.size).toBe(targets.length);
      for (const { module, whole, svd } of expected) {
        const best = svd.truncate(rank);
        expect(distance(get(merged, module), best), `${module} at rank ${rank}`).toBeLessThan(1e-5);
        const report = result.modules.find((each: { module: string }) => each.module === module);
        expect(report.shape).toEqual([whole.rows, whole.cols]);
        // The whole matrix has rank 59 at most; the reference, from a Gram matrix, has noise beyond it.
        const full = Math.min(whole.rows, whole.cols, 59);
        expect(report.sigma).toHaveLength(Math.min(rank, full));
        for (const [k, value] of report.sigma.entries())
          expect(Math.abs(value - (svd.sigma[k] ?? 0))).toBeLessThan(1e-9 * norm(whole));
        expect(report.truncationError).toBeCloseTo(rank >= full ? 0 : distance(best, whole), 9);
        expect(report.effectiveRank).toBeGreaterThan(1);
        expect(report.effectiveRank).toBeLessThanOrEqual(full);
      }
    }
  }, 120_000);

  it('gives the same bytes for the same command, and equal weights where none is given', async () => {
    const a = await adapterFolder(plain('even', 2));
    const b = await adapterFolder(plain('odd', 3));
    const into = async (name: string) => {
      const result = await merge('--strategy', 'flexlora', '--rank', '5', '--out', at(name), at('even'), at('odd'));
      expect(result).toMatchObject({ exitCode: 0, err: '' });
      expect(result.out).toMatch(/^adapter +rank +weight +share\n/);
      expect(result.out).toMatch(/q_proj +1 +64 × 64 +0\.00e\+0 +\d/);
      expect(result.out).toContain(`The merged adapter of rank 5 is in ${at(name)}.`);
      return await readFile(at(name, 'adapter_model.safetensors'));
    };
    expect(await into('once')).toEqual(await into('twice'));
    const merged = await productsIn(at('once'), 5);
    for (const { module } of layer) {
      const mean = sum([
        [0.5, get(a, module)],
        [0.5, get(b, module)],
      ]);
      expect(distance(get(merged, module), mean)).toBeLessThan(1e-6);
    }
    const card = await readFile(at('once', 'README.md'), 'utf8');
    expect(card).toContain('library_name: peft');
    expect(card).toContain('the base model karpathy/stories260K');
    expect(card).toMatch(/\| merging \| flexlora\b/);
    expect(card).toContain(`- ${at('odd')}: rank 3, weight 1`);
  });

  it('gives the same bytes and the same document from processes of its own', async () => {
    await adapterFolder(plain('side', 3));
    await adapterFolder(plain('by-side', 5));
    await adapterFolder(plain('beside', 4));
    const into = async (name: string, jobs: string) => {
      const args = ['--strategy', 'flexlora-carry', '--rank', '5', '--out', at(name), '--jobs', jobs];
      const { out: _out, ...rest } = await document(
        ...args,
        '--global',
        at('beside'),
        `${at('side')}=1@${at('beside')}`,
        `${at('by-side')}=2@${at('beside')}`,
      );
      return { rest, bytes: await readFile(at(name, 'adapter_model.safetensors')) };
    };
    expect(await into('jobs-3', '3')).toEqual(await into('jobs-1', '1'));
  });

  it('carries the changes onto the global adapter', async () => {
    const global = await adapterFolder(plain('global', 6));
    const names = ['x', 'y'] as const;
    const starts = await Promise.all(names.map((name, k) => adapterFolder(plain(`${name}-start`, 2 + 2 * k))));
    const ends = await Promise.all(names.map((name, k) => adapterFolder(plain(name, 2 + 2 * k))));
    const carry = ['--strategy', 'flexlora-carry', '--rank', '24', '--global', at('global')];
    const shares = [0.25, 0.75];
    const result = await document(
      ...carry,
      '--out',
      at('carried'),
      `${at('x')}=1@${at('x-start')}`,
      `${at('y')}=3@${at('y-start')}`,
    );
    expect(result.adapters.map(({ start }: { start: string }) => start)).toEqual([at('x-start'), at('y-start')]);
    const merged = await productsIn(at('carried'), 24);
    for (const { module } of layer) {
      const whole = sum([
        [1, get(global, module)],
        ...ends.map((end, k) => [shares[k] ?? 0, get(end, module)] as const),
        ...starts.map((start, k) => [-(shares[k] ?? 0), get(start, module)] as const),
      ]);
      expect(distance(get(merged, module), whole)).toBeLessThan(1e-6);
    }

    // Nobody trained: the global adapter again.
    await document(...carry, '--out', at('idle'), `${at('x')}@${at('x')}`, `${at('y')}@${at('y')}`);
    for (const [module, product] of await productsIn(at('idle'), 24))
      expect(distance(product, get(global, module))).toBeLessThan(1e-6);
  });

  it('says that a strategy does not use what it is given', async () => {
    await adapterFolder(plain('unused'));
    const args = ['--strategy', 'flexlora', '--rank', '4', '--out', at('unused-out'), '--global', at('unused')];
    const { exitCode, err } = await merge(...args, at('unused'));
    expect(exitCode).toBe(0);
    expect(err).toMatch(/flexlora does without --global: checked, but without effect/);
  });

  it('takes two folders of one model for one, says so, and names the model in the result', async () => {
    await adapterFolder(plain('here', 2, { baseModel: 'assets/models/stories260K/' }));
    await adapterFolder(plain('there', 2, { baseModel: 'C:\\models\\stories260K' }));
    await adapterFolder(plain('unnamed', 2, { baseModel: '' }));
    const args = ['--strategy', 'flexlora', '--rank', '2', '--out', at('one'), at('unnamed'), at('here'), at('there')];
    const { exitCode, err } = await merge(...args);
    expect(exitCode).toBe(0);
    expect(err).toMatch(/for the same model as assets\/models\/stories260K\//);
    const config = JSON.parse(await readFile(at('one', 'adapter_config.json'), 'utf8'));
    expect(config.base_model_name_or_path).toBe('assets/models/stories260K/');
  });

  it('reads weights after folder names that hold the signs themselves', async () => {
    await adapterFolder(plain('lr=1@2', 2));
    const name = at('lr=1@2');
    const args = ['--strategy', 'flexlora', '--rank', '2', '--out', at('signs'), `${name}=7@${name}`, '--json'];
    const { exitCode, out } = await merge(...args);
    expect(exitCode).toBe(0);
    expect(JSON.parse(out).adapters).toEqual([{ path: name, weight: 7, share: 1, ranks: [2], start: name }]);
  });
});

describe('wrong use', () => {
  const options = (strategy = 'flexlora', rank = '4') => ['--strategy', strategy, '--rank', rank, '--out', at('no')];
  beforeAll(() => Promise.all(['p', 'q'].map((name) => adapterFolder(plain(name)))));

  it.each<[string, () => string[], RegExp]>([
    ['no adapter', () => options(), /missing required argument/],
    ['no strategy', () => ['--rank', '4', '--out', at('no'), at('p')], /--strategy <name>/],
    [
      'an unknown strategy',
      () => [...options('median'), at('p')],
      /no strategy median; choose flexlora-carry, flexlora-frozen-tail, flexlora, flora, raflora, zero-pad, hetlora, fedit/,
    ],
    ['a rank of 0', () => [...options('flexlora', '0'), at('p')], /--rank must be at least 1/],
    ['half a rank', () => [...options('flexlora', '1.5'), at('p')], /--rank takes a whole number/],
    ['a weight that is no number', () => [...options(), `${at('p')}=much`], /p is "much"/],
    ['given and omitted weights', () => [...options(), `${at('p')}=10`, at('q')], /p has a weight and .*q has none/],
    ['only weights of 0', () => [...options(), `${at('p')}=0`], /All weights are 0/],
    ['a carry without a state', () => [...options('flexlora-carry'), `${at('p')}@${at('q')}`], /give --global DIR/],
    [
      'a carry without a start',
      () => [...options('flexlora-carry'), '--global', at('q'), `${at('p')}@${at('q')}`, at('q')],
      /give @START_DIR, what it started from, after \S*q\./,
    ],
  ])('%s is exit code 2, and says what to write', async (_name, args, message) => {
    const { exitCode, out, err } = await merge(...args());
    expect([exitCode, out]).toEqual([2, '']);
    expect(err).toMatch(message);
  });
});

describe('failures', () => {
  const first = <T>(values: readonly T[]): T => {
    const [value] = values;
    if (value === undefined) throw new Error('nothing there');
    return value;
  };
  const poison = (values: Float32Array): Float32Array => values.map((value, i) => (i === 3 ? Number.NaN : value));
  const cut = async (name: string, change: (bytes: Uint8Array) => Uint8Array | string) => {
    await adapterFolder(plain(name));
    const file = at(name, 'adapter_model.safetensors');
    await writeFile(file, change(await readFile(file)));
  };
  beforeAll(() => adapterFolder(plain('good')));

  it.each<[string, string, (name: string) => Promise<unknown>, RegExp]>([
    ['a folder that is not there', 'no-such-folder', async () => undefined, /There is no folder \S*bad/],
    [
      'a folder without weights',
      'adapter-missing',
      async (name) => {
        await adapterFolder(plain(name));
        await rm(at(name, 'adapter_model.safetensors'));
      },
      /has no adapter_model\.safetensors/,
    ],
    [
      'a folder without a configuration',
      'adapter-missing',
      async (name) => {
        await adapterFolder(plain(name));
        await rm(at(name, 'adapter_config.json'));
      },
      /has no adapter_config\.json/,
    ],
    ['truncated weights', 'safetensors-truncated', (name) => cut(name, (bytes) => bytes.subarray(0, -9)), /Fetch it/],
    [
      'weights that are something else',
      'safetensors-header',
      (name) => cut(name, () => 'version https://'),
      /adapter_/,
    ],
    [
      'an option that changes what factors mean',
      'adapter-config',
      async (name) => {
        await adapterFolder(plain(name));
        const config = JSON.parse(await readFile(at(name, 'adapter_config.json'), 'utf8'));
        await writeFile(at(name, 'adapter_config.json'), JSON.stringify({ ...config, use_dora: true }));
      },
      /use_dora true is not supported/,
    ],
    [
      'a rank that its file does not have',
      'adapter-tensor',
      async (name) => {
        await adapterFolder(plain(name));
        const config = JSON.parse(await readFile(at(name, 'adapter_config.json'), 'utf8'));
        await writeFile(at(name, 'adapter_config.json'), JSON.stringify({ ...config, r: 5 }));
      },
      /where the configuration says rank 5/,
    ],
    [
      'NaN',
      'adapter-tensor',
      (name) => adapterFolder(plain(name, 4, { change: (own) => ({ ...own, b: poison(own.b) }) })),
      /model\.layers\.0\.\S+ holds NaN/,
    ],
    [
      'another base model',
      'adapter-model',
      (name) => adapterFolder(plain(name, 4, { baseModel: 'someone/babyllama-105' })),
      /adapts the model someone\/babyllama-105, but \S*good adapts karpathy\/stories260K/,
    ],
    [
      'fewer modules',
      'modules',
      (name) => adapterFolder(plain(name), layer.slice(1)),
      new RegExp(`bad-modules does not adapt ${first(layer).module.replaceAll('.', '\\.')}, which \\S*good does`),
    ],
    [
      'other shapes',
      'shape',
      (name) =>
        adapterFolder(
          plain(name),
          layer.map((target) => ({ ...target, out: target.out + 1 })),
        ),
      /bad-shape of model\.layers\.0\.\S+ is \[65, 172\] where \[64, 172\] is merged/,
    ],
  ])('%s is exit code 1 with a typed error', async (_name, code, make, message) => {
    const name = `bad-${code}`;
    await rm(at(name), { recursive: true, force: true });
    await make(name);
    const out = at(`${name}-out`);
    const result = await merge('--strategy', 'flexlora', '--rank', '4', '--out', out, at('good'), at(name), '--json');
    expect(result.exitCode).toBe(1);
    expect(result.err).toMatch(message);
    // The folder at fault is named, and nothing is written.
    expect(result.err).toContain(at(name));
    expect(JSON.parse(result.out)).toMatchObject({ error: { code, message: expect.stringMatching(message) } });
    await expect(readFile(join(out, 'adapter_config.json'))).rejects.toThrow(/ENOENT/);
  });

  it.each(['1', '2'])(
    'names the folder and the matrix of a value that is not a number, with --jobs %s',
    async (jobs) => {
      const name = `poisoned-${jobs}`;
      await adapterFolder(plain(name, 4, { change: (own) => ({ ...own, a: poison(own.a) }) }));
      const args = ['--strategy', 'flexlora', '--rank', '4', '--out', at(`${name}-out`), '--jobs', jobs, '--json'];
      const { exitCode, err, out } = await merge(...args, at('good'), at(name));
      expect(exitCode).toBe(1);
      expect(err).toMatch(
        new RegExp(
          `The adapter in \\S*${name} cannot be merged\\.\n {2}because: adapter_model\\.safetensors: model\\.layers\\.0`,
        ),
      );
      expect(JSON.parse(out)).toMatchObject({ error: { code: 'adapter-tensor' } });
      await expect(readFile(at(`${name}-out`, 'adapter_config.json'))).rejects.toThrow(/ENOENT/);
    },
  );

  it('does not write over what is there', async () => {
    await mkdir(at('empty'));
    await writeFile(at('file'), 'kept');
    const into = (out: string) => merge('--strategy', 'flexlora', '--rank', '4', '--out', out, at('good'), '--json');
    expect(await into(at('empty'))).toMatchObject({ exitCode: 0 });
    for (const [out, message] of [
      [at('empty'), /is not empty; choose a new folder/],
      [at('file'), /is a file; choose another folder/],
    ] as const) {
      const result = await into(out);
      expect(result.exitCode).toBe(1);
      expect(JSON.parse(result.out)).toMatchObject({ error: { code: 'out-exists' } });
      expect(result.err).toMatch(message);
    }
    expect(await readFile(at('file'), 'utf8')).toBe('kept');
  });
});
