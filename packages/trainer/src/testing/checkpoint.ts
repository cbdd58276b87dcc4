// A family's model with seeded random weights: as the files of a Hugging Face folder, and as the reference takes it, with
// the values that the file's element type keeps.
import { encodeElements, modelTensors, planSafetensors, toFloat32 } from '@weft/formats';
import { seededRandom } from '../random.ts';
import type { ReferenceModel } from '../reference/index.ts';
import { configText, type Family } from './families.ts';

export interface TestModel {
  readonly family: Family;
  /** By name: config.json and the weights, sharded with an index where the family says so. No tokenizer. */
  readonly files: Map<string, Uint8Array>;
  readonly reference: ReferenceModel;
}

interface Weight {
  readonly name: string;
  readonly dtype: 'F32' | 'F16' | 'BF16';
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** Matrices keep the size of what passes them; norms are around 1, so that one left out is seen. */
function drawn(name: string, shape: readonly number[]): Float32Array {
  const random = seededRandom('test weights', name);
  const length = shape.reduce((product, size) => product * size, 1);
  const isNorm = /norm\.weight$/.test(name);
  const bound = shape.length === 2 ? Math.sqrt(3 / (shape[1] ?? 1)) : 0.5;
  return Float32Array.from({ length }, () => (isNorm ? 1 : 0) + bound * (2 * random.uniform() - 1));
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}

function safetensors(weights: readonly Weight[]): Uint8Array {
  const { header, entries } = planSafetensors(weights, { format: 'pt' });
  const bytes = new Map(weights.map((weight) => [weight.name, weight.bytes]));
  return join([header, ...entries.map(({ name }) => bytes.get(name) ?? new Uint8Array())]);
}

/** Neighbouring tensors go to different shards, so that a reader needs the index. */
function weightFiles(weights: readonly Weight[], shards: number): [string, Uint8Array][] {
  if (shards === 1) return [['model.safetensors', safetensors(weights)]];
  const number = (shard: number) => String(shard).padStart(5, '0');
  const nameOf = (i: number) => `model-${number((i % shards) + 1)}-of-${number(shards)}.safetensors`;
  const index = {
    metadata: { total_size: weights.reduce((sum, { bytes }) => sum + bytes.length, 0) },
    weight_map: Object.fromEntries(weights.map(({ name }, i) => [name, nameOf(i)])),
  };
  const files = Array.from({ length: shards }, (_, shard): [string, Uint8Array] => [
    nameOf(shard),
    safetensors(weights.filter((_weight, i) => i % shards === shard)),
  ]);
  return [...files, ['model.safetensors.index.json', new TextEncoder().encode(JSON.stringify(index))]];
}

/** Builds a family's model. The same weights every time; vectors stay float32, as some checkpoints keep their norms. */
export function testModel(family: Family): TestModel {
  const weights = modelTensors(family.config).map(({ name, shape }): Weight => {
    const dtype = shape.length === 2 ? family.dtype : 'F32';
    return { name, dtype, shape, bytes: encodeElements(dtype, drawn(name, shape)) };
  });
  const values = new Map(weights.map((weight) => [weight.name, toFloat32(weight)]));
  const weight = (name: string) => {
    const found = values.get(name);
    if (!found) throw new RangeError(`The test model has no ${name}.`);
    return found;
  };
  const files = new Map([
    ['config.json', new TextEncoder().encode(configText(family))],
    ...weightFiles(weights, family.shards),
  ]);
  return { family, files, reference: { config: family.config, weight } };
}
