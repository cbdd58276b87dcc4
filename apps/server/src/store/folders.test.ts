// Folders a server refuses to start with, each by name; and the lock that keeps two servers apart.
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { modelTensors, parseModelConfig, readSafetensors, toFloat32, writeSafetensors } from '@weft/formats';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { createServer, type ServerOptions } from '../index.ts';
import { MODEL_DIR, makeFolders, TASKS_DIR, testOptions } from '../testing/server.ts';
import { BlobFolder } from './blobs.ts';
import { readJson, writeJson } from './files.ts';
import { lockFolder } from './lock.ts';
import { MODEL_FILES, openModelFolder } from './model-folder.ts';
import { openTaskFolder } from './task-folder.ts';

const start = (options: ServerOptions) => createServer({ ...options, logger: pino({ level: 'error' }) });

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-folders-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const failure = (work: Promise<unknown>): Promise<{ code: string; message: string }> =>
  work.then(
    () => Promise.reject(new Error('it did not fail')),
    (error: unknown) => error as { code: string; message: string },
  );

describe('a model folder', () => {
  beforeEach(() => {
    for (const name of MODEL_FILES) cpSync(join(MODEL_DIR, name), join(folder, name));
  });

  it('that is whole is described', async () => {
    const { model, files, config } = await openModelFolder(folder);
    expect(model.parameters).toBe(260_032);
    expect(config.layers).toBe(5);
    expect(files.map((file) => file.entry.name)).toEqual([...MODEL_FILES]);
  });

  it.each(MODEL_FILES)('without %s is refused by that name', async (name) => {
    rmSync(join(folder, name));
    const error = await failure(openModelFolder(folder));
    expect(error).toMatchObject({ code: 'model-missing-file', message: expect.stringContaining(name) });
  });

  const change = (edit: (config: Record<string, unknown>) => void) => {
    const path = join(folder, 'config.json');
    const config = JSON.parse(readFileSync(path, 'utf8'));
    edit(config);
    writeFileSync(path, JSON.stringify(config));
  };

  it('of an unknown architecture is refused by that name', async () => {
    change((config) => {
      config.architectures = ['MambaForCausalLM'];
    });
    const error = await failure(openModelFolder(folder));
    expect(error).toMatchObject({
      code: 'model-unknown-architecture',
      message: expect.stringContaining('MambaForCausalLM'),
    });
  });

  it('whose weights have another shape is refused by the tensor', async () => {
    change((config) => {
      config.vocab_size = 513;
    });
    const error = await failure(openModelFolder(folder));
    expect(error).toMatchObject({ code: 'model-wrong-shape' });
    expect(error.message).toContain('model.embed_tokens.weight is [512,64] where config.json promises [513,64]');
  });

  it('whose weights lack a tensor, are cut short or have a header longer than the file is refused', async () => {
    const path = join(folder, 'model.safetensors');
    truncateSync(path, 1_000_000);
    expect(await failure(openModelFolder(folder))).toMatchObject({
      code: 'model-bad-weights',
      message: expect.stringMatching(/ends before|damaged/),
    });
    const header = new Uint8Array(16);
    new DataView(header.buffer).setBigUint64(0, 1_000_000n, true);
    writeFileSync(path, header);
    expect(await failure(openModelFolder(folder))).toMatchObject({
      code: 'model-bad-weights',
      message: expect.stringContaining('header of 1000000'),
    });
    writeFileSync(path, writeSafetensors([{ name: 'stray', dtype: 'F32', shape: [1], data: new Float32Array(1) }]));
    expect(await failure(openModelFolder(folder))).toMatchObject({
      code: 'model-bad-weights',
      message: expect.stringContaining('model.embed_tokens.weight'),
    });
  });

  const INDEX = 'model.safetensors.index.json';
  /** Cuts the weights into two shards, as save_pretrained does. */
  const shard = () => {
    const whole = join(folder, 'model.safetensors');
    const tensors = [...readSafetensors(readFileSync(whole)).tensors].map(([name, raw]) => {
      return { name, dtype: 'F32' as const, shape: raw.shape, data: toFloat32(raw) };
    });
    const names = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'] as const;
    for (const [i, name] of names.entries())
      writeFileSync(join(folder, name), writeSafetensors(tensors.filter((_, k) => k % 2 === i)));
    const weight_map = Object.fromEntries(tensors.map(({ name }, k) => [name, names[k % 2 === 0 ? 0 : 1]]));
    writeFileSync(join(folder, INDEX), JSON.stringify({ metadata: {}, weight_map }));
    rmSync(whole);
    return { names, weight_map };
  };

  it('cut into shards is described with its index and every shard', async () => {
    const whole = await openModelFolder(folder);
    const { names } = shard();
    const { model, files, config } = await openModelFolder(folder);
    expect(config).toEqual(whole.config);
    expect(model).toEqual(whole.model);
    expect(files.map((file) => file.entry.name)).toEqual([
      'config.json',
      INDEX,
      ...names,
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    expect(files.every((file) => file.entry.kind === 'model')).toBe(true);
  });

  it('that has whole weights too is served with those alone', async () => {
    const whole = readFileSync(join(folder, 'model.safetensors'));
    shard();
    writeFileSync(join(folder, 'model.safetensors'), whole);
    expect((await openModelFolder(folder)).files.map((file) => file.entry.name)).toEqual([...MODEL_FILES]);
  });

  it('whose shard is missing, is another’s or lies elsewhere is refused by its name', async () => {
    const { names, weight_map } = shard();
    const write = (changes: Record<string, string>) =>
      writeFileSync(join(folder, INDEX), JSON.stringify({ weight_map: { ...weight_map, ...changes } }));
    write({ 'model.norm.weight': weight_map['model.norm.weight'] === names[0] ? names[1] : names[0] });
    expect(await failure(openModelFolder(folder))).toMatchObject({
      code: 'model-bad-weights',
      message: expect.stringMatching(/has no model\.norm\.weight.*it is in/),
    });
    write({ 'model.norm.weight': '../elsewhere.safetensors' });
    expect(await failure(openModelFolder(folder))).toMatchObject({
      code: 'model-bad-weights',
      message: expect.stringContaining('../elsewhere.safetensors'),
    });
    write({});
    rmSync(join(folder, names[1]));
    expect(await failure(openModelFolder(folder))).toMatchObject({
      code: 'model-missing-file',
      message: expect.stringContaining(names[1]),
    });
  });

  it.each(['MistralForCausalLM', 'Qwen2ForCausalLM', 'Qwen3ForCausalLM'])(
    'of %s is described',
    async (architecture) => {
      change((config) => {
        config.architectures = [architecture];
      });
      const config = parseModelConfig(readFileSync(join(folder, 'config.json'), 'utf8'));
      const tensors = modelTensors(config).map(({ name, shape }) => {
        const length = shape.reduce((product, size) => product * size, 1);
        return { name, shape, dtype: 'BF16' as const, data: new Float32Array(length) };
      });
      writeFileSync(join(folder, 'model.safetensors'), writeSafetensors(tensors));
      const { model } = await openModelFolder(folder);
      expect(model.parameters).toBe(tensors.reduce((sum, { data }) => sum + data.length, 0));
    },
  );

  it('with a chat template of its own serves that too', async () => {
    writeFileSync(join(folder, 'chat_template.jinja'), '{{ messages }}');
    expect((await openModelFolder(folder)).files.at(-1)?.entry.name).toBe('chat_template.jinja');
  });

  it('whose tokenizer is no JSON is refused', async () => {
    writeFileSync(join(folder, 'tokenizer.json'), '{');
    expect(await failure(openModelFolder(folder))).toMatchObject({
      code: 'model-bad-config',
      message: expect.stringContaining('tokenizer.json'),
    });
  });
});

describe('a tasks folder', () => {
  it('without tasks is refused, and so is a task with a bad line, by its number', async () => {
    expect(await failure(openTaskFolder(join(folder, 'none')))).toMatchObject({ code: 'tasks-missing' });
    expect(await failure(openTaskFolder(folder))).toMatchObject({ code: 'tasks-missing' });
    cpSync(join(TASKS_DIR, 'rooms'), join(folder, 'rooms'), { recursive: true });
    expect([...(await openTaskFolder(folder)).keys()]).toEqual(['rooms']);
    writeFileSync(join(folder, 'rooms', 'test.jsonl'), '{"prompt":"a","completion":"b"}\n{"prompt":"a"}\n');
    const error = await failure(openTaskFolder(folder));
    expect(error).toMatchObject({ code: 'task-bad-file', message: expect.stringContaining('Line 2 of test.jsonl') });
    writeFileSync(join(folder, 'rooms', 'test.jsonl'), '');
    expect(await failure(openTaskFolder(folder))).toMatchObject({ code: 'task-bad-file' });
  });
});

describe('a data folder', () => {
  it('belongs to one living server; a dead one’s lock or our own is stale', () => {
    const data = join(folder, 'data');
    const release = lockFolder(data);
    release();
    writeFileSync(join(data, 'lock'), `${process.pid}\n`);
    lockFolder(data)();
    writeFileSync(join(data, 'lock'), '999999999\n');
    lockFolder(data)();
    writeFileSync(join(data, 'lock'), `${process.ppid}\n`);
    expect(() => lockFolder(data)).toThrowError(
      expect.objectContaining({ code: 'data-dir-locked', message: expect.stringContaining(String(process.ppid)) }),
    );
  });

  it('names the file that is not what it should be', () => {
    const path = join(folder, 'x.json');
    expect(readJson(path, z.object({ n: z.int() }))).toBeNull();
    writeJson(path, { n: 1 });
    expect(readJson(path, z.object({ n: z.int() }))).toEqual({ n: 1 });
    writeFileSync(path, '{"n":');
    expect(() => readJson(path, z.object({ n: z.int() }))).toThrowError(
      expect.objectContaining({ code: 'data-dir-corrupt', message: expect.stringContaining(path) }),
    );
  });

  it('keeps a blob once, under its hash', async () => {
    const blobs = new BlobFolder(join(folder, 'blobs'));
    const first = await blobs.put(new Uint8Array([1, 2, 3]));
    expect(await blobs.put(new Uint8Array([1, 2, 3]))).toEqual(first);
    expect([...blobs.read(first.sha256)]).toEqual([1, 2, 3]);
    expect(() => blobs.read('0'.repeat(64))).toThrowError(expect.objectContaining({ code: 'data-dir-corrupt' }));
  });
});

it('a server that cannot start says why and leaves nothing locked', async () => {
  const folders = makeFolders();
  const options = testOptions(folders);
  expect(await failure(start({ ...options, modelDir: folder }))).toMatchObject({ code: 'model-missing-file' });
  mkdirSync(join(folder, 'empty'));
  expect(await failure(start({ ...options, pagesDir: join(folder, 'empty') }))).toMatchObject({
    code: 'pages-missing',
  });
  const server = await start({ ...options, port: 0 });
  const other = makeFolders();
  expect(await failure(start({ ...testOptions(other), port: server.port }))).toMatchObject({
    code: 'address-in-use',
  });
  await server.close();
  folders.remove();
  other.remove();
});

it('the admin token is made once, and accepted after a restart', async () => {
  const folders = makeFolders();
  const { adminToken: _given, ...options } = testOptions(folders);
  const first = await start(options);
  expect(first.adminToken).toMatch(/^[\w-]{43}$/);
  const token = first.adminToken ?? '';
  await first.close();
  const second = await start(options);
  expect(second.adminToken).toBeNull();
  const get = (bearer: string) =>
    fetch(`${second.url}/api/runs/none/events.jsonl`, { headers: { authorization: `Bearer ${bearer}` } });
  expect(await (await get(token)).json()).toMatchObject({ error: { code: 'unknown-run' } });
  expect(await (await get(`${token}x`)).json()).toMatchObject({ error: { code: 'unauthorised' } });
  expect(readFileSync(join(folders.dataDir, 'admin.json'), 'utf8')).not.toContain(token);
  await second.close();
  folders.remove();
});
