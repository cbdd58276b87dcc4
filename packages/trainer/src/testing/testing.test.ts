// Test models must be the families they claim to be: read as written, and different from what a trainer would compute that
// overlooked what makes the family.
import {
  type ModelConfig,
  parseModelConfig,
  readAdapter,
  readSafetensors,
  toFloat32,
  writeAdapter,
} from '@weft/formats';
import { describe, expect, it } from 'vitest';
import { referenceLoss } from '../reference/index.ts';
import { ADAPTERS, configText, FAMILIES, testAdapter, testExamples, testModel } from './index.ts';

it.each(FAMILIES)('$name means what its config.json says', (family) => {
  expect(parseModelConfig(configText(family))).toEqual(family.config);
});

it.each(FAMILIES)('$name has the same weights in its files as the reference', (family) => {
  const { files, reference } = testModel(family);
  const weightFiles = [...files].filter(([name]) => name.endsWith('.safetensors'));
  expect(weightFiles.length).toBe(family.shards);
  let found = 0;
  for (const [file, bytes] of weightFiles) {
    for (const [name, tensor] of readSafetensors(bytes, file).tensors) {
      expect(toFloat32(tensor), name).toEqual(reference.weight(name));
      if (tensor.shape.length === 2) expect(tensor.dtype).toBe(family.dtype);
      found += 1;
    }
  }
  const index = files.get('model.safetensors.index.json');
  expect(index !== undefined).toBe(family.shards > 1);
  if (!index) return;
  const { weight_map: map } = JSON.parse(new TextDecoder().decode(index));
  expect(Object.keys(map).length).toBe(found);
  for (const [name, file] of Object.entries<string>(map))
    expect(readSafetensors(files.get(file) ?? new Uint8Array()).tensors.has(name), name).toBe(true);
});

it.each(FAMILIES)('adapters of $name survive their files', ({ name, config }) => {
  const adapters = Object.values(ADAPTERS[name] ?? {});
  expect(adapters[0]?.targets.length).toBe(7);
  for (const spec of adapters) {
    const adapter = testAdapter(config, spec);
    const files = writeAdapter(adapter);
    const read = readAdapter({ config: files['adapter_config.json'], weights: files['adapter_model.safetensors'] });
    expect([...read.matrices.values()].sort((a, b) => (a.module < b.module ? -1 : 1))).toEqual(
      [...adapter.matrices.values()].sort((a, b) => (a.module < b.module ? -1 : 1)),
    );
  }
});

it('spreads group sizes and head sizes over the families', () => {
  const groups = new Set(FAMILIES.map(({ config }) => config.heads / config.kvHeads));
  expect([...groups].sort()).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  const heads = new Set(FAMILIES.map(({ config }) => config.headSize));
  expect([...heads].sort((a, b) => a - b)).toEqual([4, 10, 64, 80, 96, 128]);
});

describe('what makes a family is seen in its loss', () => {
  const overlooked: Partial<Record<string, (config: ModelConfig) => Partial<ModelConfig>>> = {
    'rope scaling': () => ({ ropeScaling: null }),
    'its theta': () => ({ ropeTheta: 3 }),
    'its epsilon': () => ({ normEpsilon: 1e-1 }),
    windows: ({ layers }) => ({ windows: Array.from({ length: layers }, () => null) }),
    'the layers of windows': ({ windows }) => ({ windows: [...windows].reverse() }),
    biases: () => ({ biases: [] }),
    'norms of queries and keys': () => ({ queryKeyNorm: false }),
  };
  const cases = FAMILIES.flatMap((family) =>
    Object.entries(overlooked).flatMap(([what, without]) => {
      const config = { ...family.config, ...without?.(family.config) };
      return JSON.stringify(config) === JSON.stringify(family.config) ? [] : [{ name: family.name, what, config }];
    }),
  );

  it.each(cases)('$name without $what', ({ name, config }) => {
    const family = FAMILIES.find((one) => one.name === name);
    if (!family) throw new Error(`There is no family ${name}.`);
    const { reference } = testModel(family);
    const examples = testExamples(config.vocabSize);
    const loss = referenceLoss(reference, null, examples);
    // A hundred times what the GPU's loss may err by.
    expect(Math.abs(referenceLoss({ ...reference, config }, null, examples) / loss - 1)).toBeGreaterThan(1e-3);
  });
});
