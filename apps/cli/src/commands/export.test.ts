// `weft export`: the merged model has the loss of base and adapter together, in one file and in shards; and an adapter that
// `weft train` wrote, read by a reader that knows nothing of ours.
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { asset, commandLine, readJson, task } from '../testing.ts';
import { registerEval } from './eval.ts';
import { registerExport } from './export.ts';
import { registerTrain } from './train.ts';

const { file, weft, document, failure } = commandLine(registerExport, registerEval, registerTrain);
const model = ['--model', asset('stories260K')];
const adapter = ['--adapter', asset('stories260K', 'golden-lora', 'adapter')];
const data = ['--data', task('rooms', 'test')];

/** A minimal reader, from the format's description at github.com/huggingface/safetensors: F32 tensors by name. */
function readTensors(bytes: Buffer): Map<string, { shape: number[]; values: number[] }> {
  const headerLength = Number(bytes.readBigUInt64LE(0));
  const header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> = JSON.parse(
    bytes.toString('utf8', 8, 8 + headerLength),
  );
  const tensors = Object.entries(header).filter(([name]) => name !== '__metadata__');
  return new Map(
    tensors.map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [begin, end],
        },
      ]) => {
        expect(dtype, name).toBe('F32');
        const values: number[] = [];
        for (let at = begin; at < end; at += 4) values.push(bytes.readFloatLE(8 + headerLength + at));
        return [name, { shape, values }];
      },
    ),
  );
}

describe('weft export', () => {
  it('writes a model whose loss is that of base and adapter', async () => {
    const out = file('merged');
    const exported = await document(['export', ...model, ...adapter, '--out', out]);
    expect(exported.files).toEqual([{ name: 'model.safetensors', bytes: expect.any(Number) }]);
    expect((await readdir(out)).sort()).toEqual([
      'README.md',
      'config.json',
      'model.safetensors',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    expect(await readFile(`${out}/config.json`)).toEqual(await readFile(asset('stories260K', 'config.json')));
    const bare = await document(['eval', ...model, ...data]);
    const adapted = await document(['eval', ...model, ...adapter, ...data]);
    const merged = await document(['eval', '--model', out, ...data]);
    expect(Math.abs(adapted.loss - bare.loss)).toBeGreaterThan(1e-2);
    expect(Math.abs(merged.loss - adapted.loss)).toBeLessThan(1e-5 * adapted.loss);
    const card = await readFile(`${out}/README.md`, 'utf8');
    expect(card).toContain('library_name: transformers');
    expect(card).toContain(`base_model: ${JSON.stringify(asset('stories260K'))}`);
  });

  it('writes shards, and another element type, that config.json names', async () => {
    const out = file('shards');
    const options = ['--dtype', 'f16', '--shard-size', '0.2', '--out', out];
    const { files, dtype } = await document(['export', ...model, ...adapter, ...options]);
    expect(dtype).toBe('f16');
    expect(files.length).toBeGreaterThan(2);
    for (const { name, bytes } of files) {
      expect(name).toMatch(/^model-0000\d-of-0000\d\.safetensors$/);
      // Headers come on top.
      expect(bytes).toBeLessThan(200_000 + 8192);
    }
    expect((await readJson(`${out}/config.json`)).torch_dtype).toBe('float16');
    const index = await readJson(`${out}/model.safetensors.index.json`);
    expect(index.metadata.total_size).toBe(2 * 260_032);
    const adapted = await document(['eval', ...model, ...adapter, ...data]);
    const merged = await document(['eval', '--model', out, ...data]);
    expect(merged.loss).not.toBe(adapted.loss);
    expect(Math.abs(merged.loss - adapted.loss)).toBeLessThan(1e-3);
  });

  it('refuses a folder with something in it, and an adapter of another model, and leaves nothing behind', async () => {
    const full = file('full');
    await mkdir(full);
    await writeFile(`${full}/mine.txt`, 'mine');
    expect(await failure(['export', ...model, ...adapter, '--out', full])).toMatchObject({ code: 'not-empty' });
    expect(await readdir(full)).toEqual(['mine.txt']);
    const other = ['--adapter', asset('babyllama-105', 'golden-lora', 'adapter')];
    const wrong = await failure(['export', ...model, ...other, '--out', file('wrong')]);
    expect(wrong).toMatchObject({ exitCode: 1, code: 'adapter-model' });
    expect(await readdir(file('wrong')).catch(() => null)).toBeNull();
    const text = await weft('export', ...model, ...adapter, '--out', file('text'));
    expect(text.out).toMatch(/35 matrices are merged/);
  });
});

describe('an adapter that weft train writes', () => {
  it('has PEFT’s names and shapes for a reader of another make, and these make the merged weights', async () => {
    const out = file('trained');
    const options = ['--rank', '3', '--alpha', '6', '--targets', 'q_proj,down_proj', '--steps', '2', '--batch', '2'];
    await document(['train', ...model, '--data', task('rooms', 'train'), ...options, '--out', out]);
    const tensors = readTensors(await readFile(`${out}/adapter_model.safetensors`));
    const sizes = { 'self_attn.q_proj': [64, 64], 'mlp.down_proj': [64, 172] } as const;
    const expected = Array.from({ length: 5 }, (_, layer) =>
      Object.entries(sizes).flatMap(([module, [rows, columns]]) => {
        const name = `base_model.model.model.layers.${layer}.${module}`;
        return [
          [`${name}.lora_A.weight`, [3, columns]],
          [`${name}.lora_B.weight`, [rows, 3]],
        ];
      }),
    ).flat();
    const byName = (a: unknown[], b: unknown[]) => (String(a[0]) < String(b[0]) ? -1 : 1);
    expect([...tensors].map(([name, { shape }]) => [name, shape]).sort(byName)).toEqual(expected.sort(byName));
    expect(await readJson(`${out}/adapter_config.json`)).toMatchObject({ peft_type: 'LORA', r: 3, lora_alpha: 6 });

    await document(['export', ...model, '--adapter', out, '--out', file('merged-by-hand')]);
    const read = async (folder: string) => readTensors(await readFile(`${folder}/model.safetensors`));
    const [base, merged] = [await read(asset('stories260K')), await read(file('merged-by-hand'))];
    const valuesOf = (from: typeof base, name: string) => from.get(name)?.values ?? [];
    const weight = 'model.layers.2.mlp.down_proj';
    const [w, m] = [valuesOf(base, `${weight}.weight`), valuesOf(merged, `${weight}.weight`)];
    const a = valuesOf(tensors, `base_model.model.${weight}.lora_A.weight`);
    const b = valuesOf(tensors, `base_model.model.${weight}.lora_B.weight`);
    let changed = 0;
    for (let i = 0; i < 64; i += 1) {
      for (let j = 0; j < 172; j += 1) {
        const delta = [0, 1, 2].reduce((sum, r) => sum + (b[i * 3 + r] ?? 0) * (a[r * 172 + j] ?? 0), 0);
        const at = i * 172 + j;
        // Summed in float64 and rounded once.
        expect(m[at]).toBe(Math.fround((w[at] ?? 0) + 2 * delta));
        changed += Number(m[at] !== w[at]);
      }
    }
    expect(changed).toBeGreaterThan(0);
  });
});
