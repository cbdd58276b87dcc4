// Pulling against a hub on the loopback device: what is fetched, what is resumed (by the bytes the hub served), what is refused.
import { lstat, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CommandError, type Io } from '../command.ts';
import type { HubSettings, Patience } from './hub.ts';
import { findPulled } from './place.ts';
import { pullModel } from './pull.ts';
import { parseHubModel } from './spec.ts';
import { gitOid, sha256, startTestHub, type TestFile, type TestHub } from './test-hub.ts';

const COMMIT = 'c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00';
const OLD_COMMIT = '01d'.padEnd(40, '0');
const PATIENCE: Patience = { attempts: 4, firstPauseMs: 1, silenceMs: 300, longestWaitMs: 5000 };

/** Bytes that differ everywhere, so that a piece in the wrong place is found. */
const content = (length: number, seed: number): Uint8Array => {
  const words = Uint32Array.from({ length: Math.ceil(length / 4) }, (_, i) => Math.imul(i + seed, 0x9e3779b1));
  return new Uint8Array(words.buffer).slice(0, length);
};
const text = (value: string): TestFile => ({ bytes: new TextEncoder().encode(value) });
const WEIGHTS = content(700_001, 1);

const FILES: Record<string, TestFile> = {
  '.gitattributes': text('*.safetensors filter=lfs'),
  'README.md': text('# A model'),
  LICENSE: text('Apache-2.0'),
  'config.json': text('{"architectures": ["LlamaForCausalLM"]}'),
  'generation_config.json': text('{}'),
  'tokenizer.json': { bytes: content(40_000, 2), lfs: true },
  'tokenizer_config.json': text('{"bos_token": "<s>"}'),
  'pytorch_model.bin': { bytes: content(5000, 3), lfs: true },
  'consolidated.safetensors': { bytes: content(5000, 4), lfs: true },
  'training_args.bin': text('x'),
  'model.safetensors': { bytes: WEIGHTS, lfs: true },
};
const NEEDED = [
  'LICENSE',
  'README.md',
  'config.json',
  'generation_config.json',
  'model.safetensors',
  'tokenizer.json',
  'tokenizer_config.json',
];
const SHARDS = [content(90_000, 5), content(80_000, 6)] as const;
const index = {
  metadata: {},
  weight_map: { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' },
};

const REPOS = {
  'org/model': {
    revisions: { main: COMMIT, [COMMIT]: COMMIT, 'v1.0': OLD_COMMIT, [OLD_COMMIT]: OLD_COMMIT },
    files: FILES,
  },
  'org/sharded': {
    revisions: { main: COMMIT, [COMMIT]: COMMIT },
    files: {
      'config.json': text('{}'),
      'model.safetensors.index.json': text(JSON.stringify(index)),
      'model-00001-of-00002.safetensors': { bytes: SHARDS[0], lfs: true },
      'model-00002-of-00002.safetensors': { bytes: SHARDS[1], lfs: true },
      'model-00003-of-00003.safetensors': { bytes: content(100, 7), lfs: true },
    },
  },
  'org/short': {
    revisions: { main: COMMIT, [COMMIT]: COMMIT },
    files: { 'config.json': text('{}'), 'model.safetensors.index.json': text(JSON.stringify(index)) },
  },
  'org/gguf': {
    revisions: { main: COMMIT, [COMMIT]: COMMIT },
    files: { 'config.json': text('{}'), 'model-q4.gguf': { bytes: content(100, 8), lfs: true } },
  },
};

let hub: TestHub;
let folder: string;
let notes: string[];
let abort: AbortController;
beforeEach(async () => {
  hub = await startTestHub(REPOS);
  folder = await mkdtemp(join(tmpdir(), 'weft-pull-'));
  notes = [];
  abort = new AbortController();
});
afterEach(async () => {
  await hub.close();
  await rm(folder, { recursive: true, force: true });
});

const settings = (change: Partial<HubSettings> = {}): HubSettings => ({
  endpoint: hub.url,
  token: null,
  cache: join(folder, 'cache'),
  ...change,
});
const io = (): Io => ({
  json: false,
  signal: abort.signal,
  note: (line) => notes.push(line),
  status: () => {},
  result: () => {},
});
const out = () => join(folder, 'out');
const pull = (spec: string, change: Partial<HubSettings> = {}) =>
  pullModel(parseHubModel(spec), settings(change), io(), { out: out(), patience: PATIENCE });
const pullToCache = (spec: string) => pullModel(parseHubModel(spec), settings(), io(), { patience: PATIENCE });
const failure = async (work: Promise<unknown>): Promise<CommandError> => {
  const error = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (error instanceof CommandError) return error;
  throw new Error(`expected a CommandError, not ${error}`);
};
/** Bytes of the weights that the hub has served so far. */
const served = () =>
  hub.seen.filter(({ path }) => path === `/${sha256(WEIGHTS)}`).reduce((sum, { bytes }) => sum + bytes, 0);
const weightRequests = () => hub.seen.filter(({ path }) => path === `/${sha256(WEIGHTS)}`);
const onWeights = (fault: (nth: number) => ReturnType<TestHub['fault']>) => {
  hub.fault = (path, nth) => (path === `/${sha256(WEIGHTS)}` ? fault(nth) : null);
};
const weights = join('out', 'model.safetensors');
const hashOut = async (name: string) => sha256(await readFile(join(out(), name)));

describe('a pull', () => {
  it('fetches what a model needs and nothing else, and says what it is', async () => {
    const pulled = await pull('org/model');
    expect(pulled).toMatchObject({ repo: 'org/model', revision: 'main', commit: COMMIT, folder: out() });
    expect(pulled.files.map(({ path }) => path)).toEqual(NEEDED);
    expect((await readdir(out())).sort()).toEqual(['.weft-pull.json', ...NEEDED]);
    for (const { path, bytes, algorithm, hash } of pulled.files) {
      const expected = FILES[path];
      expect(await hashOut(path), path).toBe(sha256(expected?.bytes ?? new Uint8Array()));
      expect(bytes).toBe(expected?.bytes.length);
      expect({ algorithm, hash }).toEqual(
        expected?.lfs
          ? { algorithm: 'sha256', hash: sha256(expected.bytes) }
          : { algorithm: 'git-sha1', hash: gitOid(expected?.bytes ?? new Uint8Array()) },
      );
    }
    const total = NEEDED.reduce((sum, path) => sum + (FILES[path]?.bytes.length ?? 0), 0);
    expect(pulled).toMatchObject({ bytes: total, fetchedBytes: total });
    expect(hub.seen.every(({ path }) => !path.includes('pytorch') && !path.includes('consolidated'))).toBe(true);
  });

  it('follows the index of a sharded model, and takes only the shards it names', async () => {
    const pulled = await pull('org/sharded');
    expect(pulled.files.map(({ path }) => path)).toEqual([
      'config.json',
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
      'model.safetensors.index.json',
    ]);
    expect(await hashOut('model-00002-of-00002.safetensors')).toBe(sha256(SHARDS[1]));
  });

  it('takes the revision asked for, resolved to its commit', async () => {
    expect(await pull('org/model@v1.0')).toMatchObject({ revision: 'v1.0', commit: OLD_COMMIT });
    expect(
      hub.seen.filter(({ path }) => path.includes('/resolve/')).every(({ path }) => path.includes(OLD_COMMIT)),
    ).toBe(true);
  });

  it('fetches nothing a second time, but finds and mends what was damaged on the disk', async () => {
    await pull('org/model');
    const before = served();
    expect(await pull('org/model')).toMatchObject({ fetchedBytes: 0 });
    expect(served()).toBe(before);
    const damaged = WEIGHTS.slice();
    damaged[350_000] = (damaged[350_000] ?? 0) ^ 1;
    await writeFile(join(folder, weights), damaged);
    await truncate(join(out(), 'config.json'), 5);
    expect(await pull('org/model')).toMatchObject({
      fetchedBytes: WEIGHTS.length + (FILES['config.json']?.bytes.length ?? 0),
    });
    expect(await hashOut('model.safetensors')).toBe(sha256(WEIGHTS));
    expect(notes.join('\n')).toContain('model.safetensors is not what the hub states');
  });

  it('sends the token to the hub and to nobody it redirects to', async () => {
    hub.token = 'any-token';
    await pull('org/model', { token: 'any-token' });
    const atHub = hub.seen.filter(({ path }) => path.includes('/org/model'));
    const elsewhere = hub.seen.filter(({ path }) => !path.includes('/org/model'));
    expect(atHub.every(({ authorization }) => authorization === 'Bearer any-token')).toBe(true);
    expect(elsewhere.length).toBe(2);
    expect(elsewhere.every(({ authorization }) => authorization === undefined)).toBe(true);
  });

  it('leaves a folder alone that holds something else', async () => {
    await mkdir(out());
    await writeFile(join(out(), 'README.md'), 'mine');
    expect(await failure(pull('org/model'))).toMatchObject({ code: 'not-empty' });
    expect(await readFile(join(out(), 'README.md'), 'utf8')).toBe('mine');
    expect(await readdir(out())).toEqual(['README.md']);
    await rm(out(), { recursive: true });
    await pull('org/model');
    expect((await failure(pull('org/model@v1.0'))).message).toContain(`org/model@${COMMIT}`);
  });
});

describe('a pull that breaks off', () => {
  it('mends a cut connection with a Range request, not by fetching all of it again', async () => {
    onWeights((nth) => (nth < 2 ? { kind: 'cut', after: 300_000 } : null));
    await pull('org/model');
    expect(await hashOut('model.safetensors')).toBe(sha256(WEIGHTS));
    const [first, second, third] = weightRequests();
    expect(first?.range).toBeUndefined();
    const starts = [second, third].map((request) => Number(/^bytes=(\d+)-$/.exec(request?.range ?? '')?.[1]));
    expect(starts[0]).toBeGreaterThan(200_000);
    expect(starts[0]).toBeLessThanOrEqual(300_000);
    expect(third?.bytes).toBe(WEIGHTS.length - (starts[1] ?? 0));
    // What the client had not read yet when a connection broke comes again, and nothing else.
    expect(served()).toBeLessThan(WEIGHTS.length + 200_000);
  });

  it('goes on in the next run from what was kept', async () => {
    onWeights((nth) => (nth === 0 ? { kind: 'cut', after: 400_000 } : { kind: 'status', status: 503 }));
    const error = await failure(pull('org/model'));
    expect(error.code).toBe('hub-busy');
    expect(error.message).toContain('is kept');
    expect(weightRequests()).toHaveLength(1 + PATIENCE.attempts);
    const kept = (await stat(join(folder, `${weights}.part`))).size;
    expect(kept).toBeGreaterThan(300_000);
    await expect(stat(join(folder, weights))).rejects.toThrow('ENOENT');

    hub.fault = () => null;
    const before = served();
    const pulled = await pull('org/model');
    expect(weightRequests().at(-1)?.range).toBe(`bytes=${kept}-`);
    expect(served() - before).toBe(WEIGHTS.length - kept);
    expect(pulled.files.find(({ path }) => path === 'model.safetensors')).toMatchObject({
      fetchedBytes: WEIGHTS.length - kept,
    });
    expect(await hashOut('model.safetensors')).toBe(sha256(WEIGHTS));
    await expect(stat(join(folder, `${weights}.part`))).rejects.toThrow('ENOENT');
  });

  it('keeps its parts when it is interrupted', async () => {
    onWeights(() => ({ kind: 'slow', pauseMs: 5 }));
    const work = failure(pull('org/model'));
    while (served() < 200_000) await new Promise((resolve) => setTimeout(resolve, 5));
    abort.abort(new CommandError('interrupted', 'Interrupted.'));
    const error = await work;
    expect(error).toMatchObject({ code: 'interrupted' });
    expect(error.message).toContain('kept');
    const kept = (await stat(join(folder, `${weights}.part`))).size;
    expect(kept).toBeGreaterThan(100_000);
    expect(await readdir(out())).not.toContain('.weft-pull.lock');

    abort = new AbortController();
    hub.fault = () => null;
    await pull('org/model');
    expect(weightRequests().at(-1)).toMatchObject({ range: `bytes=${kept}-`, bytes: WEIGHTS.length - kept });
    expect(await hashOut('model.safetensors')).toBe(sha256(WEIGHTS));
  });

  it('does not wait for ever for a hub that falls silent', async () => {
    onWeights((nth) => (nth === 0 ? { kind: 'silent', after: 100_000 } : null));
    await pull('org/model');
    expect(weightRequests()).toHaveLength(2);
    expect(notes.join('\n')).toContain('nothing arrived for 0.3 s');
    expect(await hashOut('model.safetensors')).toBe(sha256(WEIGHTS));
  });

  it('begins again where the hub cannot go on in the middle', async () => {
    onWeights((nth) => (nth === 0 ? { kind: 'cut', after: 300_000 } : { kind: 'no-ranges' }));
    await pull('org/model');
    expect(weightRequests()).toHaveLength(2);
    expect(weightRequests()[1]).toMatchObject({ bytes: WEIGHTS.length });
    expect(notes.join('\n')).toContain('fetched from its start');
    expect(await hashOut('model.safetensors')).toBe(sha256(WEIGHTS));
  });

  it('ends also where the hub cannot go on and always breaks off', async () => {
    onWeights(() => ({ kind: 'cut', after: 300_000, ranges: false }));
    const error = await failure(pull('org/model'));
    expect(error.code).toBe('hub-unreachable');
    expect(error.message).toContain('breaks off again and again');
    expect(weightRequests().length).toBeLessThan(3 * PATIENCE.attempts);
  });
});

describe('what arrives damaged', () => {
  it('is thrown away and fetched again', async () => {
    onWeights((nth) => (nth === 0 ? { kind: 'damage' } : null));
    await pull('org/model');
    expect(served()).toBe(2 * WEIGHTS.length);
    expect(await hashOut('model.safetensors')).toBe(sha256(WEIGHTS));
    expect(notes.join('\n')).toContain('thrown away');
  });

  it('is refused when it stays so', async () => {
    onWeights(() => ({ kind: 'damage' }));
    const error = await failure(pull('org/model'));
    expect(error).toMatchObject({ code: 'hub-damaged' });
    expect(error.message).toContain(sha256(WEIGHTS));
    expect(await readdir(out())).not.toContain('model.safetensors');
    expect(await readdir(out())).not.toContain('model.safetensors.part');
  });

  it('is found in parts kept from an earlier run, longer ones included', async () => {
    for (const part of [content(300_000, 99), content(WEIGHTS.length + 5, 1)]) {
      await pull('org/model');
      await rm(join(folder, weights));
      await writeFile(join(folder, `${weights}.part`), part);
      await pull('org/model');
      expect(await hashOut('model.safetensors')).toBe(sha256(WEIGHTS));
    }
  });

  it('is found in files of git itself too', async () => {
    hub.fault = (path) => (path.endsWith('/README.md') ? { kind: 'damage' } : null);
    expect(await failure(pull('org/model'))).toMatchObject({ code: 'hub-damaged' });
  });
});

describe('what a hub refuses', () => {
  const refusals = [
    ['org/nothing', null, 'hub-denied', 'https?://[^ ]*/org/nothing.*HF_TOKEN'],
    ['org/nothing', 'some-token', 'hub-denied', 'token \\(HF_TOKEN\\) is not accepted'],
    ['org/model@v9', null, 'hub-not-found', 'no revision "v9"'],
    ['org/gguf', null, 'hub-no-model', 'model-q4.gguf'],
    ['org/short', null, 'hub-no-model', 'model-00001-of-00002.safetensors'],
  ] as const;
  for (const [spec, token, code, message] of refusals) {
    it(`${spec} ${token ? 'with' : 'without'} a token is ${code}`, async () => {
      const error = await failure(pull(spec, { token }));
      expect(error.code).toBe(code);
      expect(error.message).toMatch(new RegExp(message));
    });
  }

  it('a gated model asks to accept its licence and set HF_TOKEN', async () => {
    hub.token = 'needed';
    const error = await failure(pull('org/model'));
    expect(error.code).toBe('hub-gated');
    expect(error.message).toContain(`accept its licence at ${hub.url}/org/model, and set HF_TOKEN`);
  });

  it('a busy hub is asked again after the time it names', async () => {
    hub.fault = (path, nth) =>
      path.startsWith('/api/') && nth === 0 ? { kind: 'status', status: 429, headers: { 'retry-after': '0.2' } } : null;
    onWeightsAlso({ kind: 'status', status: 503 });
    const began = performance.now();
    await pull('org/model');
    expect(performance.now() - began).toBeGreaterThan(400);
    expect(notes.filter((line) => line.includes('trying again in 200 ms'))).toHaveLength(2);
    expect(notes.join('\n')).toContain('answers 503');
  });

  it('a hub that stays busy, or asks for too long, is left alone', async () => {
    hub.fault = () => ({ kind: 'status', status: 500 });
    expect(await failure(pull('org/model'))).toMatchObject({ code: 'hub-busy' });
    expect(hub.seen).toHaveLength(PATIENCE.attempts);
    hub.fault = () => ({ kind: 'status', status: 429, headers: { 'retry-after': '60' } });
    const error = await failure(pull('org/model'));
    expect(error.message).toContain('again in 1 min 0 s');
    expect(hub.seen).toHaveLength(PATIENCE.attempts + 1);
  });

  it('an address where no hub is, or something else, is said', async () => {
    const error = await failure(pull('org/model', { endpoint: 'http://127.0.0.1:9' }));
    expect(error.code).toBe('hub-unreachable');
    expect(error.message).toMatch(/127\.0\.0\.1:9.*HF_ENDPOINT/);
    expect(await failure(pull('org/model', { endpoint: hub.storeUrl }))).toMatchObject({ code: 'hub-not-found' });
  });

  const onWeightsAlso = (fault: { kind: 'status'; status: number }) => {
    const before = hub.fault;
    hub.fault = (path, nth) => (path === `/${sha256(WEIGHTS)}` && nth === 0 ? fault : before(path, nth));
  };
});

describe('the disk', () => {
  it.skipIf(process.platform !== 'linux')('being full is said, and what had arrived is kept', async () => {
    // Writing to this device always fails for want of space.
    await pull('org/model');
    await rm(join(folder, weights));
    await symlink('/dev/full', join(folder, `${weights}.part`));
    const error = await failure(pull('org/model'));
    expect(error.code).toBe('disk-full');
    expect(error.message).toContain('is kept');
    expect((await readdir(out())).sort()).toContain('config.json');
  });

  it('being a file where a folder is needed is said', async () => {
    await writeFile(out(), 'a file');
    expect(await failure(pull('org/model'))).toMatchObject({ code: 'unwritable' });
  });
});

describe('the cache', () => {
  const base = () => join(folder, 'cache', 'models--org--model');

  it('has the layout that the ecosystem’s tools share', async () => {
    const pulled = await pullToCache('org/model');
    expect(pulled.folder).toBe(join(base(), 'snapshots', COMMIT));
    expect((await readdir(pulled.folder)).sort()).toEqual(NEEDED);
    expect((await lstat(join(pulled.folder, 'model.safetensors'))).isSymbolicLink()).toBe(true);
    expect(sha256(await readFile(join(base(), 'blobs', sha256(WEIGHTS))))).toBe(sha256(WEIGHTS));
    expect(await readFile(join(base(), 'refs', 'main'), 'utf8')).toBe(COMMIT);
  });

  it('shares equal files between commits', async () => {
    await pullToCache('org/model');
    expect(await pullToCache('org/model@v1.0')).toMatchObject({ commit: OLD_COMMIT, fetchedBytes: 0 });
    expect((await readdir(join(base(), 'blobs'))).length).toBe(NEEDED.length);
  });

  it('finds a model again without the hub, but not one with a part missing', async () => {
    const { cache } = settings();
    const asked = parseHubModel('org/model');
    expect(await findPulled(cache, asked)).toBeNull();
    onWeights(() => ({ kind: 'status', status: 404 }));
    await failure(pullToCache('org/model'));
    expect(await findPulled(cache, asked)).toBeNull();
    hub.fault = () => null;
    const { folder: pulled } = await pullToCache('org/model');
    const requests = hub.seen.length;
    expect(await findPulled(cache, asked)).toEqual({ folder: pulled, commit: COMMIT });
    expect(await findPulled(cache, parseHubModel(`org/model@${COMMIT}`))).toEqual({ folder: pulled, commit: COMMIT });
    expect(await findPulled(cache, parseHubModel('org/model@v1.0'))).toBeNull();
    expect(hub.seen).toHaveLength(requests);
    await truncate(join(base(), 'blobs', sha256(WEIGHTS)), 1000);
    expect(await findPulled(cache, asked)).toBeNull();
    await pullToCache('org/model');
    expect(await findPulled(cache, asked)).not.toBeNull();
  });

  it('is filled by one pull at a time', async () => {
    onWeights(() => ({ kind: 'slow', pauseMs: 1 }));
    const [first, second] = await Promise.all([pullToCache('org/model'), pullToCache('org/model')]);
    expect(served()).toBe(WEIGHTS.length);
    expect(Math.min(first.fetchedBytes, second.fetchedBytes)).toBe(0);
    expect(notes.filter((line) => line.includes('waiting for it'))).toHaveLength(1);
  });

  it('is not held by the lock of a process that has died', async () => {
    await mkdir(join(base(), '.weft'), { recursive: true });
    // The first is beyond every process id; the second is ours, though we hold no lock.
    for (const pid of [2 ** 30, process.pid]) {
      await writeFile(join(base(), '.weft', 'lock'), String(pid));
      await pullToCache('org/model');
    }
    expect(notes.join('\n')).not.toContain('waiting');
  });
});

describe('a model’s name', () => {
  it('is ORG/NAME with a revision or without', () => {
    expect(parseHubModel('org/model')).toEqual({ repo: 'org/model', revision: 'main' });
    expect(parseHubModel('hf:org/mo.del-1@refs/pr/3')).toEqual({ repo: 'org/mo.del-1', revision: 'refs/pr/3' });
  });

  it('is nothing that leads elsewhere', () => {
    for (const wrong of [
      'model',
      'a/b/c',
      '../b',
      'a/..',
      'org/',
      '/name',
      'org/na me',
      'org/m@',
      'org/m@../x',
      'org/m@a//b',
      'org/m@x?y',
    ])
      expect(() => parseHubModel(wrong), wrong).toThrow(/names no model|is no revision/);
  });
});
