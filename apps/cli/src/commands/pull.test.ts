// `weft pull` and hf:ORG/NAME as their users meet them: one JSON document out, a model that other commands take by name.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Io } from '../command.ts';
import { readModelFolder } from '../folders.ts';
import { startTestHub, type TestFile, type TestHub } from '../hub/test-hub.ts';
import { createProgram, run } from '../program.ts';
import { registerPull } from './pull.ts';

const stories = fileURLToPath(new URL('../../../../assets/models/stories260K/', import.meta.url));
const COMMIT = 'abcdef0123456789abcdef0123456789abcdef01';

let hub: TestHub;
let folder: string;
beforeEach(async () => {
  const names = ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json', 'README.md'];
  const entries = names.map(async (name): Promise<[string, TestFile]> => {
    return [name, { bytes: await readFile(join(stories, name)), lfs: name === 'model.safetensors' }];
  });
  const files = Object.fromEntries(await Promise.all(entries));
  hub = await startTestHub({ 'karpathy/stories': { revisions: { main: COMMIT, [COMMIT]: COMMIT }, files } });
  folder = await mkdtemp(join(tmpdir(), 'weft-pull-command-'));
  vi.stubEnv('HF_ENDPOINT', `${hub.url}/`);
  vi.stubEnv('HF_HOME', join(folder, 'home'));
  for (const name of ['HF_TOKEN', 'HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE']) vi.stubEnv(name, undefined);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
  process.exitCode = 0;
  await hub.close();
  await rm(folder, { recursive: true, force: true });
});

async function weft(...args: string[]) {
  const streams = { out: '', err: '' };
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    streams.out += String(text);
    return true;
  });
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    streams.err += String(text);
    return true;
  });
  process.exitCode = 0;
  const exitCode = await run(createProgram([registerPull], 'test'), args);
  vi.restoreAllMocks();
  return { exitCode, ...streams };
}
const ioWith = (notes: string[]): Io => ({
  json: false,
  signal: new AbortController().signal,
  note: (text) => notes.push(text),
  status: () => {},
  result: () => {},
});

describe('weft pull', () => {
  it('prints what it pulled, and where, as one document', async () => {
    const { exitCode, out, err } = await weft('pull', 'karpathy/stories', '--json');
    expect(exitCode).toBe(0);
    const pulled = JSON.parse(out);
    expect(pulled).toMatchObject({
      repo: 'karpathy/stories',
      revision: 'main',
      commit: COMMIT,
      bytes: pulled.fetchedBytes,
    });
    expect(pulled.folder).toBe(join(folder, 'home', 'hub', 'models--karpathy--stories', 'snapshots', COMMIT));
    expect(pulled.files.map(({ path }: { path: string }) => path)).toContain('model.safetensors');
    expect(await readFile(join(pulled.folder, 'config.json'), 'utf8')).toBe(
      await readFile(join(stories, 'config.json'), 'utf8'),
    );
    expect(err).toMatch(/model\.safetensors {2}[\d.]+ [kM]B {2}fetched and checked/);
    expect((await weft('pull', 'hf:karpathy/stories')).out).toContain('0 B of them fetched now');
  });

  it('uses the token of HF_TOKEN, of whatever form, or the one that was kept', async () => {
    hub.token = 'mirror-token';
    const refused = await weft('pull', 'karpathy/stories', '--json');
    expect(refused.exitCode).toBe(1);
    expect(JSON.parse(refused.out).error).toMatchObject({ code: 'hub-gated' });
    vi.stubEnv('HF_TOKEN', 'mirror-token');
    expect((await weft('pull', 'karpathy/stories')).exitCode).toBe(0);
    vi.stubEnv('HF_TOKEN', undefined);
    vi.stubEnv('HF_HUB_CACHE', join(folder, 'other-cache'));
    await writeFile(join(folder, 'home', 'token'), 'mirror-token\n');
    const kept = await weft('pull', 'karpathy/stories', '--json');
    expect(JSON.parse(kept.out).folder).toContain(join(folder, 'other-cache'));
  });

  it('says what is wrong with a name or an address', async () => {
    expect(await weft('pull', 'stories')).toMatchObject({ exitCode: 2 });
    expect((await weft('pull')).exitCode).toBe(2);
    vi.stubEnv('HF_ENDPOINT', 'huggingface.co');
    expect((await weft('pull', 'karpathy/stories')).err).toContain('HF_ENDPOINT is "huggingface.co"');
  });
});

describe('hf:ORG/NAME', () => {
  it('is pulled when it is not there, and used without the hub when it is', async () => {
    const notes: string[] = [];
    const model = await readModelFolder('hf:karpathy/stories', ioWith(notes));
    expect(model).toMatchObject({ name: 'karpathy/stories', config: { hiddenSize: 64 } });
    expect(model.tokenizer).not.toBeNull();
    expect(notes[0]).toContain('not here yet');
    await hub.close();
    const later: string[] = [];
    const again = await readModelFolder('hf:karpathy/stories', ioWith(later));
    expect(later).toEqual([expect.stringContaining(`using commit ${COMMIT.slice(0, 12)} pulled earlier`)]);
    const read = (of: typeof model) => of.checkpoint.read('model.norm.weight', 0, 64);
    expect(await read(again)).toEqual(await read(await readModelFolder(stories, ioWith([]))));
    hub = await startTestHub({});
  });
});
