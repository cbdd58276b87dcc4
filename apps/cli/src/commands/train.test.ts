// `weft train` beyond the plain case: what it writes for each option, that a budget changes memory and not losses, and that
// a training which is interrupted, or loses its GPU, has the losses of one that is not.
import { readFile, writeFile } from 'node:fs/promises';
import { readAdapter, readSafetensors } from '@weft/formats';
import { GpuModel, StepGraph } from '@weft/trainer';
import type { Gpu } from '@weft/wgsl-kernels';
import { describe, expect, it, vi } from 'vitest';
import { asset, commandLine, readJson, task } from '../testing.ts';
import { registerEval } from './eval.ts';
import { registerTrain } from './train.ts';

const { file, weft, document, failure } = commandLine(registerTrain, registerEval);
const base = ['--model', asset('stories260K'), '--data', task('rooms', 'train')];
const train = (...options: string[]) => ['train', ...base, ...options];
const readFolder = async (folder: string) =>
  readAdapter({
    config: await readFile(`${folder}/adapter_config.json`, 'utf8'),
    weights: await readFile(`${folder}/adapter_model.safetensors`),
  });

/** Calls `happen` before the `n`th step from now on. */
function beforeStep(n: number, happen: () => void): void {
  const run = StepGraph.prototype.run;
  let steps = 0;
  vi.spyOn(StepGraph.prototype, 'run').mockImplementation(function (this: StepGraph, ...args) {
    steps += 1;
    if (steps === n) happen();
    return run.apply(this, args);
  });
}

describe('the adapter written', () => {
  it('says how it was trained: dropout, rslora, patterns, and the ranks as they were asked for', async () => {
    const out = file('patterns');
    const options = ['--rank', '4', '--alpha', '6', '--rslora', '--dropout', '0.1', '--steps', '1', '--batch', '2'];
    const patterns = ['--rank-pattern', 'q_proj=2,layers.0.mlp.up_proj=3', '--alpha-pattern', 'v_proj=5'];
    const trained = await document(train(...options, ...patterns, '--targets', 'q_proj,v_proj,up_proj', '--out', out));
    expect(trained.rank).toEqual([2, 3, 4]);
    const config = await readJson(`${out}/adapter_config.json`);
    expect(config).toMatchObject({ r: 4, lora_alpha: 6, use_rslora: true, lora_dropout: 0.1 });
    const adapter = await readFolder(out);
    const shapeOf = (module: string) => {
      const { rank, alpha, scale } = adapter.matrices.get(`model.layers.${module}`) ?? {};
      return { rank, alpha, scale };
    };
    expect(shapeOf('0.self_attn.q_proj')).toEqual({ rank: 2, alpha: 6, scale: 6 / Math.sqrt(2) });
    expect(shapeOf('0.mlp.up_proj')).toEqual({ rank: 3, alpha: 6, scale: 6 / Math.sqrt(3) });
    expect(shapeOf('1.mlp.up_proj')).toEqual({ rank: 4, alpha: 6, scale: 3 });
    expect(shapeOf('3.self_attn.v_proj')).toEqual({ rank: 4, alpha: 5, scale: 2.5 });
    const card = await readFile(`${out}/README.md`, 'utf8');
    expect(card).toMatch(/rank 2, 3, 4.*rank-stabilised.*dropout 0\.1/);
    expect(card).toContain(asset('stories260K'));
  });

  it('has one rank, or with --keep-ranks those it was trained at', async () => {
    const options = ['--rank', '40', '--steps', '1', '--batch', '1', '--targets', 'q_proj,v_proj'];
    const ranks = async (name: string, ...more: string[]) => {
      await document(train(...options, ...more, '--out', file(name)));
      return [...(await readFolder(file(name))).matrices.values()].map(({ rank }) => rank);
    };
    expect(new Set(await ranks('uniform'))).toEqual(new Set([40]));
    // v_proj is [32, 64].
    expect(new Set(await ranks('kept', '--keep-ranks'))).toEqual(new Set([40, 32]));
  });

  it('changes B alone where only B is trained', async () => {
    const adapter = asset('stories260K', 'golden-lora', 'adapter');
    const out = file('b-only');
    await document(train('--adapter', adapter, '--trainable', 'B', '--steps', '1', '--batch', '2', '--out', out));
    const [before, after] = [await readFolder(adapter), await readFolder(out)];
    for (const [module, own] of before.matrices) {
      expect(after.matrices.get(module)?.a, module).toEqual(own.a);
      expect(after.matrices.get(module)?.b, module).not.toEqual(own.b);
    }
  });

  it('is trained beside a frozen one as if that were part of the model', async () => {
    const adapter = asset('stories260K', 'golden-lora', 'adapter');
    const loss = async (...options: string[]) => {
      const data = asset('stories260K', 'golden-lora', 'data.jsonl');
      const args = ['train', '--model', asset('stories260K'), '--data', data, '--grads', file('side.safetensors')];
      return (await document([...args, ...options])).loss;
    };
    const alone = await loss('--adapter', adapter);
    const beside = await loss('--rank', '2', '--side', adapter);
    const bare = await loss('--rank', '2');
    expect(Math.abs(beside - alone)).toBeLessThan(1e-5 * alone);
    expect(Math.abs(bare - alone)).toBeGreaterThan(1e-3 * alone);
  });
});

describe('the optimiser', () => {
  const options = ['--rank', '4', '--steps', '3', '--batch', '2', '--lr', '0.5', '--schedule', 'constant'];

  it('is AdamW, SGD, or SGD with momentum: memory, losses and the card say which', async () => {
    const run = async (name: string, ...more: string[]) => {
      const trained = await document(
        train(...options, '--micro-batch', '2', '--no-checkpoint', ...more, '--out', file(name)),
      );
      return { ...trained, card: await readFile(`${file(name)}/README.md`, 'utf8') };
    };
    const adamw = await run('adamw', '--lr', '5e-3');
    const plain = await run('sgd', '--optimiser', 'sgd');
    const heavy = await run('momentum', '--optimiser', 'sgd', '--momentum', '0.9');
    const { gradients } = adamw.memory;
    expect([adamw, plain, heavy].map(({ memory }) => memory.optimiser)).toEqual([2 * gradients, 0, gradients]);
    expect(adamw.memory.total - plain.memory.total).toBe(2 * gradients);
    expect(adamw.card).toContain('AdamW');
    expect(plain.card).toContain('rows a step, SGD, learning rate');
    expect(heavy.card).toContain('SGD with momentum 0.9');
    expect(heavy.settings.optimiser).toEqual({ name: 'sgd', momentum: 0.9 });
    // The first update is the same with momentum; the second is not.
    expect(heavy.losses.slice(0, 2)).toEqual(plain.losses.slice(0, 2));
    expect(heavy.losses[2]).not.toBe(plain.losses[2]);
    expect(plain.losses.at(-1)).toBeLessThan(plain.losses[0]);
  });

  it('is part of what a snapshot was trained with', async () => {
    const snapshot = file('sgd.snapshot');
    await document(train(...options, '--optimiser', 'sgd', '--snapshot', snapshot, '--out', file('kept')));
    const other = await failure(train(...options, '--resume', snapshot, '--out', 'x'));
    expect(other).toMatchObject({ exitCode: 2, code: 'usage' });
    expect(other.message).toMatch(/--optimiser \(was sgd, is adamw\)/);
  });
});

describe('a budget', () => {
  const common = ['--rank', '4', '--steps', '2', '--batch', '4', '--lr', '1e-3'];
  it('is kept to by smaller micro-batches and recomputed activations, with the same losses', async () => {
    const free = await document(train(...common, '--out', file('free')));
    expect(free.memory).toMatchObject({ microBatch: 4, checkpoint: false });
    const budget = Math.floor(0.8 * free.memory.total);
    const ran = await weft(...train(...common, '--budget', String(budget / 1e6), '--out', file('tight'), '--json'));
    expect(ran.err).toMatch(/^A step takes .* rows|activations computed again/);
    const tight = JSON.parse(ran.out);
    expect(tight.memory.total).toBeLessThanOrEqual(budget);
    expect(tight.memory.microBatch < 4 || tight.memory.checkpoint).toBe(true);
    for (const [i, loss] of free.losses.entries()) expect(tight.losses[i] / loss).toBeCloseTo(1, 5);
  });

  it('that nothing fits is an error that says what is needed', async () => {
    const { exitCode, code, message } = await failure(train(...common, '--budget', '0.5', '--out', file('none')));
    expect([exitCode, code]).toEqual([1, 'no-room']);
    expect(message).toMatch(/takes [\d.]+ MB at least, and --budget is 500 kB/);
  });

  it('and gradients are the same on micro-batches with activations recomputed', async () => {
    const adapter = asset('stories260K', 'golden-lora', 'adapter');
    const data = file('six.jsonl');
    await writeFile(data, (await readFile(task('rooms', 'train'), 'utf8')).split('\n').slice(0, 6).join('\n'));
    const grads = async (name: string, ...options: string[]) => {
      const args = ['--model', asset('stories260K'), '--data', data, '--adapter', adapter, '--grads', file(name)];
      await document(['train', ...args, ...options]);
      return readSafetensors(await readFile(file(name))).tensors;
    };
    const whole = await grads('whole.safetensors');
    const parts = await grads('parts.safetensors', '--micro-batch', '2', '--checkpoint');
    for (const [name, { bytes }] of whole) {
      const [a, b] = [bytes, parts.get(name)?.bytes ?? new Uint8Array()].map(
        (raw) => new Float32Array(raw.slice().buffer),
      );
      const norm = Math.hypot(...(a ?? []));
      const error = Math.hypot(...Array.from(a ?? [], (value, i) => value - (b?.[i] ?? Number.NaN)));
      expect(error, name).toBeLessThanOrEqual(1e-4 * norm);
    }
  });
});

describe('rows', () => {
  it('are held out by the seed, and measured before and after', async () => {
    const out = file('held');
    const options = ['--rank', '8', '--epochs', '0.5', '--batch', '8', '--lr', '5e-3', '--held-out', '0.2'];
    const trained = await document(train(...options, '--out', out));
    // 180 rows, less duplicates, a fifth of them held out.
    const distinct = 180 - trained.heldOut.duplicates;
    expect(trained.heldOut.rows).toBe(Math.round(0.2 * distinct));
    expect(trained.rows).toBe(distinct - trained.heldOut.rows);
    expect(trained.steps).toBe(Math.ceil((0.5 * trained.rows) / 8));
    expect(trained.heldOut.after).toBeLessThan(trained.heldOut.before - 0.5);
    expect(await readFile(`${out}/README.md`, 'utf8')).toContain(trained.heldOut.after.toFixed(4));
    const text = await weft(...train(...options, '--out', out));
    expect(text.out).toContain(`Held-out loss of ${trained.heldOut.rows} rows: ${trained.heldOut.before.toFixed(4)}`);
  });

  it('are packed, with the loss of all of them unchanged', async () => {
    const data = file('pack.jsonl');
    await writeFile(data, (await readFile(task('rooms', 'train'), 'utf8')).split('\n').slice(0, 12).join('\n'));
    const args = ['train', '--model', asset('stories260K'), '--data', data, '--rank', '2', '--steps', '1'];
    const apart = await document([...args, '--batch', '12', '--out', file('apart')]);
    const packed = await document([...args, '--pack', '--seq', '128', '--batch', '3', '--out', file('packed')]);
    expect(packed.packedRows).toBeLessThanOrEqual(4);
    // As many rows a batch as there are, so that the first step sees each example once.
    const whole = await document(
      [...args, '--pack', '--seq', '128', '--batch', String(packed.packedRows), '--out', file('packed')],
      { chatty: true },
    );
    expect(whole.targetTokens).toBe(apart.targetTokens);
    expect(whole.firstLoss / apart.firstLoss).toBeCloseTo(1, 5);
  });

  it.each([
    [
      'csv',
      'question,answer\n"Where is the bed?",bedroom\nsink,kitchen\n',
      ['--columns', 'prompt=question,completion=answer'],
    ],
    ['txt', 'Once upon a time there was a bed. It stood in a room. '.repeat(8), ['--seq', '32']],
  ])('come from %s files', async (ending, content, options) => {
    const data = file(`rows.${ending}`);
    await writeFile(data, content);
    const common = ['--rank', '2', '--steps', '1', '--batch', '2', '--out', file(ending)];
    const trained = await document(['train', '--model', asset('stories260K'), '--data', data, ...common, ...options]);
    expect(trained.rows).toBeGreaterThan(1);
  });
});

describe('base weights', () => {
  it.each(['f16', 'q8', 'q4'])('train as %s, in less memory', async (weights) => {
    const common = ['--rank', '4', '--steps', '4', '--batch', '4', '--lr', '5e-3'];
    const trained = await document(train(...common, '--weights', weights, '--out', file(weights)));
    expect(trained.lastLoss).toBeLessThan(trained.firstLoss);
    const f32 = 4 * 260_032;
    expect(trained.memory.weights).toBeLessThan((weights === 'f16' ? 0.6 : 0.4) * f32);
  });
});

describe('a training that breaks off', () => {
  const options = [
    ...['--rank', '2', '--steps', '6', '--batch', '2', '--lr', '4e-3', '--schedule', 'cosine', '--dropout', '0.2'],
    ...['--targets', 'q_proj,down_proj'],
  ];

  it('goes on from its snapshot with the losses of one that did not', async () => {
    const whole = await document(train(...options, '--out', file('whole')));
    const snapshot = file('run.snapshot');
    beforeStep(3, () => process.emit('SIGINT'));
    const stopped = await failure(train(...options, '--out', file('parts'), '--snapshot', snapshot));
    vi.restoreAllMocks();
    expect(stopped).toMatchObject({ exitCode: 1, code: 'interrupted' });
    expect(stopped.message).toMatch(/after step [345] of 6/);
    const resumed = await document(train(...options, '--out', file('parts'), '--resume', snapshot));
    expect(resumed.resumedAfter).toBeGreaterThan(2);
    expect(resumed.resumedAfter).toBeLessThan(6);
    expect(resumed.losses).toEqual(whole.losses);
    const weights = (name: string) => readFile(`${file(name)}/adapter_model.safetensors`);
    expect(await weights('parts')).toEqual(await weights('whole'));

    const other = await failure(train(...options, '--out', 'x', '--resume', snapshot, '--batch', '3', '--seed', '1'));
    expect(other).toMatchObject({ exitCode: 2, code: 'usage' });
    expect(other.message).toMatch(/--batch \(was 2, is 3\)/);
    expect(other.message).toMatch(/--seed \(was 0, is 1\)/);
    expect(other.message).not.toMatch(/--lr|--data/);
    const way = await failure(train(...options, '--out', 'x', '--resume', snapshot, '--micro-batch', '1'));
    expect(way.message).toMatch(/--micro-batch \(was 2, is 1\)/);
  });

  it('goes on over a lost GPU, and says so', async () => {
    const whole = await document(train(...options, '--out', file('steady')));
    const gpus: Gpu[] = [];
    const upload = GpuModel.upload;
    vi.spyOn(GpuModel, 'upload').mockImplementation((gpu, ...rest) => {
      gpus.push(gpu);
      return upload(gpu, ...rest);
    });
    beforeStep(4, () => gpus[0]?.device.destroy());
    // A snapshot after every step, in a file, so that what is redone is little.
    const snapshots = ['--snapshot', file('lost.snapshot'), '--snapshot-every', '0.001'];
    const ran = await weft(...train(...options, ...snapshots, '--out', file('lost'), '--json'));
    expect(ran.exitCode, ran.err).toBe(0);
    expect(ran.err).toMatch(/The GPU was lost.*Training goes on/);
    const trained = JSON.parse(ran.out);
    expect(gpus.length).toBe(2);
    expect(trained.deviceLosses).toBe(1);
    expect(trained.losses).toEqual(whole.losses);
  });

  it.each([
    ['a snapshot that is not there', () => file('nowhere'), 'no-such-file'],
    ['a file that is none', () => `${asset('stories260K')}/model.safetensors`, 'bad-snapshot'],
  ])('refuses %s', async (_name, snapshot, code) => {
    expect(await failure(train(...options, '--out', 'x', '--resume', snapshot()))).toMatchObject({ exitCode: 1, code });
  });
});

describe('wrong use', () => {
  it.each<[string, string[], RegExp]>([
    ['both lengths', ['--rank', '1', '--steps', '1', '--epochs', '1'], /--steps and --epochs/],
    ['a part that is all', ['--rank', '1', '--held-out', '1'], /--held-out must lie between 0 and 1/],
    ['no part', ['--rank', '1', '--held-out', '0'], /--held-out must lie between 0 and 1/],
    ['a pattern without a number', ['--rank', '1', '--rank-pattern', 'q_proj'], /KEY=VALUE.*"q_proj"/],
    ['a pattern that is none', ['--rank', '1', '--rank-pattern', '(=2'], /no regular expression/],
    ['a pattern for nothing', ['--rank', '1', '--rank-pattern', 'qkv_proj=2'], /"qkv_proj", which ends no/],
    ['A of a new adapter', ['--rank', '1', '--trainable', 'A'], /whose B is zero/],
    ['an unknown type', ['--rank', '1', '--weights', 'q2'], /one of f32, f16, q8, q4/],
    ['an unknown optimiser', ['--rank', '1', '--optimiser', 'adam'], /adamw, sgd/],
    ['momentum of AdamW', ['--rank', '1', '--momentum', '0.9'], /--momentum is of --optimiser sgd/],
    ['an unknown schedule', ['--rank', '1', '--schedule', 'step'], /constant, linear, cosine/],
    ['an uneven cut', ['--rank', '1', '--batch', '8', '--micro-batch', '3'], /does not divide/],
    ['rslora twice', ['--adapter', 'x', '--rslora'], /--adapter already says/],
    ['columns that are none', ['--rank', '1', '--columns', 'prompt'], /KEY=VALUE/],
    ['snapshots of gradients', ['--rank', '1', '--grads', 'x', '--snapshot', 'y'], /--grads trains nothing/],
  ])('%s is exit code 2, and says what to write', async (_name, options, message) => {
    const { exitCode, out, err } = await weft(...train(...options, '--out', file('never')));
    expect([exitCode, out]).toEqual([2, '']);
    expect(err).toMatch(message);
  });
});
