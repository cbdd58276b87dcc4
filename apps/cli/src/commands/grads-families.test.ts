// `weft train --grads`, the door for outside checks, on a folder of every family: padded rows that are tokens already, and
// an adapter with all its patterns, from disk to a safetensors file, against the float64 reference.
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parsePeftTensorName, readSafetensors, toFloat32, writeAdapter } from '@weft/formats';
import {
  ADAPTERS,
  FAMILIES,
  gradientErrors,
  referenceGradients,
  testAdapter,
  testExamples,
  testModel,
  worstOf,
} from '@weft/trainer/testing';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { runWeft } from '../testing.ts';
import { registerTrain } from './train.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weft-families-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
afterEach(() => {
  process.exitCode = 0;
});

/** The document that `weft train … --json` prints. */
async function train(...args: string[]) {
  const { exitCode, ...streams } = await runWeft([registerTrain], ['train', ...args, '--json']);
  expect(streams.err).toBe('');
  expect(exitCode).toBe(0);
  return JSON.parse(streams.out);
}

async function writeFiles(name: string, files: Iterable<readonly [string, Uint8Array | string]>): Promise<string> {
  const path = join(folder, name);
  await mkdir(path);
  for (const [file, content] of files) await writeFile(join(path, file), content);
  return path;
}

/** Factors by module, from tensors with PEFT's names. */
function gradientsOf(tensors: ReturnType<typeof readSafetensors>['tensors']) {
  const gradients = new Map<string, { a: Float32Array; b: Float32Array }>();
  for (const [name, tensor] of tensors) {
    if (name === 'loss') continue;
    const parsed = parsePeftTensorName(name);
    if (!parsed) throw new Error(`${name} is no name of PEFT's.`);
    const own = gradients.get(parsed.module) ?? { a: new Float32Array(), b: new Float32Array() };
    own[parsed.factor === 'A' ? 'a' : 'b'] = toFloat32(tensor);
    gradients.set(parsed.module, own);
  }
  return gradients;
}

it.each(FAMILIES)('weft train --grads takes the folder of $name', async (family) => {
  const spec = Object.values(ADAPTERS[family.name] ?? {})[0];
  if (!spec) throw new Error(`${family.name} has no adapter.`);
  const { files, reference } = testModel(family);
  const adapter = testAdapter(family.config, spec);
  const examples = testExamples(family.config.vocabSize);

  const model = await writeFiles(`${family.name}-model`, files);
  const adapterFolder = await writeFiles(`${family.name}-adapter`, Object.entries(writeAdapter(adapter)));
  const data = join(folder, `${family.name}.jsonl`);
  const lines = examples.map(({ inputIds, labels }) => JSON.stringify({ input_ids: inputIds, labels }));
  await writeFile(data, lines.join('\n'));
  const grads = join(folder, `${family.name}.safetensors`);
  const result = await train('--model', model, '--adapter', adapterFolder, '--data', data, '--grads', grads);

  const expected = referenceGradients(reference, adapter, examples);
  const targets = examples.reduce((sum, example) => sum + example.targets, 0);
  expect(result).toMatchObject({ grads, targetTokens: targets, truncatedRows: 0 });
  const { tensors } = readSafetensors(await readFile(grads));
  const loss = tensors.get('loss');
  expect(loss).toMatchObject({ dtype: 'F32', shape: [] });
  expect(Math.abs((loss ? (toFloat32(loss)[0] ?? 0) : 0) / expected.loss - 1)).toBeLessThan(1e-5);
  const errors = gradientErrors(gradientsOf(tensors), expected.gradients);
  const { name, error } = worstOf(errors);
  expect(error, name).toBeLessThan(1e-3);
  expect(errors.overall).toBeLessThan(2e-4);
});
