// What tests of commands share: running one in this process with its streams caught, and the models and rows of assets/.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, vi } from 'vitest';
import { createProgram, type Register, run } from './program.ts';

const assets = fileURLToPath(new URL('../../../assets/', import.meta.url));

/** A model folder of assets/models. */
export const asset = (...parts: string[]): string => join(assets, 'models', ...parts);

/** Rows of a task. */
export const task = (name: string, split: 'train' | 'test'): string =>
  join(assets, 'tasks', 'natural-instructions', name, `${split}.jsonl`);

export const readJson = async (path: string) => JSON.parse(await readFile(path, 'utf8'));

export interface Ran {
  readonly exitCode: number;
  readonly out: string;
  readonly err: string;
}

/** Runs one command in this process. */
export async function runWeft(registers: readonly Register[], args: readonly string[]): Promise<Ran> {
  const streams = { out: '', err: '' };
  const spies = [
    vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
      streams.out += String(text);
      return true;
    }),
    vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
      streams.err += String(text);
      return true;
    }),
  ];
  process.exitCode = 0;
  try {
    const exitCode = await run(createProgram(registers, 'test'), args);
    return { exitCode, ...streams };
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
}

/** A command line of these commands, and a folder for its files that is removed after the tests of the file. */
export function commandLine(...registers: Register[]) {
  let root = '';
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'weft-cli-'));
  });
  afterAll(() => rm(root, { recursive: true, force: true }));
  afterEach(() => {
    vi.restoreAllMocks();
    process.exitCode = 0;
  });
  const weft = (...args: string[]): Promise<Ran> => runWeft(registers, args);
  return {
    /** A path in the folder. */
    file: (...parts: string[]): string => join(root, ...parts),
    weft,
    /** The document a command prints under --json; it must succeed, and say nothing else unless `chatty`. */
    async document(args: readonly string[], { chatty = false } = {}) {
      const { exitCode, out, err } = await weft(...args, '--json');
      if (!chatty) expect(err).toBe('');
      expect(exitCode, err).toBe(0);
      return JSON.parse(out);
    },
    /** The error a command prints under --json, and how it exits. */
    async failure(args: readonly string[]): Promise<{ exitCode: number; code: string; message: string }> {
      const { exitCode, out, err } = await weft(...args, '--json');
      expect(err).not.toBe('');
      return { exitCode, ...JSON.parse(out).error };
    },
  };
}
