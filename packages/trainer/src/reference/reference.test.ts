// The reference is held to central differences of fourth order: (8(f(h) − f(−h)) − (f(2h) − f(−2h))) / 12h errs by
// h⁴·f⁽⁵⁾/30 and by rounding, some 1e-16·f/h. With h = 1e-3 that is 1e-12 for losses of a few nats, and gradients of 1e-4
// and more are told apart to eight digits.
import { loraTargets, modelTensors, sparseColumns } from '@weft/formats';
import { describe, expect, it } from 'vitest';
import { ADAPTERS, exampleOf, FAMILIES, testAdapter, testExamples, testModel } from '../testing/index.ts';
import {
  type DropoutMasks,
  type FactorGradients,
  type ReferenceModel,
  referenceGradients,
  referenceLogits,
  referenceLoss,
} from './index.ts';
import { addTo, times } from './numbers.ts';

const STEP = 1e-3;
const BOUND = 1e-8;
const SAMPLES = 2;

interface Factors {
  readonly a: Float64Array;
  readonly b: Float64Array;
  readonly scale: number;
}

/** In float64, so that a test may move an element by little. */
const wide = (model: ReferenceModel): ReferenceModel => {
  const weights = new Map(
    modelTensors(model.config).map(({ name }) => [name, Float64Array.from(model.weight(name))] as const),
  );
  return { ...model, weight: (name) => weights.get(name) ?? [] };
};

function familyOf(name: string) {
  const family = FAMILIES.find((one) => one.name === name);
  if (!family) throw new Error(`There is no family ${name}.`);
  return { family, model: wide(testModel(family).reference) };
}

function factorsOf(name: string, adapter: string): Map<string, Factors> {
  const spec = ADAPTERS[name]?.[adapter];
  if (!spec) throw new Error(`${name} has no adapter ${adapter}.`);
  const { matrices } = testAdapter(familyOf(name).family.config, spec);
  return new Map(
    [...matrices].map(([module, { a, b, scale }]) => [
      module,
      { a: Float64Array.from(a), b: Float64Array.from(b), scale },
    ]),
  );
}

/** Throws unless gradients of sampled elements of every factor are those of `loss`. */
function expectGradients(
  matrices: ReadonlyMap<string, Factors>,
  gradients: ReadonlyMap<string, FactorGradients>,
  loss: () => number,
): void {
  expect([...gradients.keys()].sort()).toEqual([...matrices.keys()].sort());
  for (const [module, factors] of matrices) {
    for (const factor of ['a', 'b'] as const) {
      const values = factors[factor];
      // A sparse matrix has no A.
      if (values.length === 0) continue;
      const ours = gradients.get(module)?.[factor] ?? new Float64Array();
      expect(ours.length).toBe(values.length);
      const sample = Array.from({ length: SAMPLES }, (_, i) => Math.floor(((i + 0.5) * values.length) / SAMPLES));
      const errors = sample.map((i) => {
        const value = values[i] ?? 0;
        const at = (by: number) => {
          values[i] = value + by;
          return loss();
        };
        const slope = (8 * (at(STEP) - at(-STEP)) - (at(2 * STEP) - at(-2 * STEP))) / (12 * STEP);
        values[i] = value;
        return slope - (ours[i] ?? Number.NaN);
      });
      const size = Math.hypot(...ours) / Math.sqrt(ours.length);
      expect(size, `${module} ${factor}`).toBeGreaterThan(0);
      expect(Math.hypot(...errors) / size, `${module} ${factor}`).toBeLessThan(BOUND);
    }
  }
}

/** Two rows, both longer than the windows; every loss of a test is of these. */
const shortRows = (vocabSize: number) =>
  testExamples(vocabSize)
    .filter(({ inputIds }) => inputIds.length < 10)
    .slice(0, 2);

describe.each(FAMILIES.map(({ name }) => name))('the gradients of %s', (name) => {
  it.each(Object.keys(ADAPTERS[name] ?? {}))('are those of its loss: %s', (adapter) => {
    const { family, model } = familyOf(name);
    const matrices = factorsOf(name, adapter);
    const examples = shortRows(family.config.vocabSize);
    const { loss, gradients } = referenceGradients(model, { matrices }, examples);
    expect(referenceLoss(model, { matrices }, examples)).toBe(loss);
    expectGradients(matrices, gradients, () => referenceLoss(model, { matrices }, examples));
  });
});

describe('frozen side adapters', () => {
  const name = 'qwen2-window';
  const { family, model } = familyOf(name);
  const examples = shortRows(family.config.vocabSize);
  const matrices = factorsOf(name, 'ranks by layer');
  const sideOf = (module: string, scale: number) => {
    const { a, b } = matrices.get(module) ?? { a: [], b: [] };
    return { a: Float64Array.from(a, Math.cos), b: Float64Array.from(b, (value) => value ** 2 - 0.1), scale };
  };
  const modules = ['model.layers.0.self_attn.k_proj', 'model.layers.1.mlp.down_proj'];
  const sides = new Map(modules.map((module) => [module, [sideOf(module, 0.7), sideOf(module, -0.2)]]));

  it('count in the loss as if they were merged into the weights', () => {
    const merged: ReferenceModel = {
      ...model,
      weight: (tensor) => {
        const target = loraTargets(family.config).find(({ module }) => tensor === `${module}.weight`);
        const w = Float64Array.from(model.weight(tensor));
        for (const { a, b, scale } of sides.get(target?.module ?? '') ?? []) {
          const columns = target?.in ?? 0;
          const product = times(b, a, a.length / columns);
          addTo(w, 0, product, 0, w.length, scale);
        }
        return w;
      },
    };
    const loss = referenceLoss({ ...model, sides }, { matrices }, examples);
    expect(loss).toBeCloseTo(referenceLoss(merged, { matrices }, examples), 12);
    expect(Math.abs(loss - referenceLoss(model, { matrices }, examples))).toBeGreaterThan(1e-3);
  });

  it('change the gradients of the trained factors and have none', () => {
    const withSides = { ...model, sides };
    const { gradients } = referenceGradients(withSides, { matrices }, examples);
    expectGradients(matrices, gradients, () => referenceLoss(withSides, { matrices }, examples));
    const alone = referenceGradients(withSides, null, examples);
    expect(alone.gradients.size).toBe(0);
  });
});

describe('a sparse matrix', () => {
  const { family, model } = familyOf('qwen2-window');
  const examples = shortRows(family.config.vocabSize);
  const spec = { density: 0.2, seed: 'places' };
  const matrices = new Map(
    loraTargets(family.config).map((target) => {
      const columns = sparseColumns(spec, target);
      const b = Float64Array.from(columns, (column, k) => 0.2 * Math.sin(k + column));
      return [target.module, { a: new Float64Array(0), b, scale: 1, columns }];
    }),
  );

  it('has the gradients of the loss', () => {
    const { loss, gradients } = referenceGradients(model, { matrices }, examples);
    expect(loss).not.toBe(referenceLoss(model, null, examples));
    expectGradients(matrices, gradients, () => referenceLoss(model, { matrices }, examples));
  });

  it('counts in the loss as if it were added to the weights', () => {
    const added: ReferenceModel = {
      ...model,
      weight: (tensor) => {
        const target = loraTargets(family.config).find(({ module }) => tensor === `${module}.weight`);
        const w = Float64Array.from(model.weight(tensor));
        const { b, columns } = matrices.get(target?.module ?? '') ?? { b: [], columns: [] };
        for (const [k, value] of b.entries()) {
          const place = Math.floor(k / (b.length / (target?.out ?? 1))) * (target?.in ?? 0) + (columns[k] ?? 0);
          w[place] = (w[place] ?? Number.NaN) + value;
        }
        return w;
      },
    };
    expect(referenceLoss(model, { matrices }, examples)).toBeCloseTo(referenceLoss(added, null, examples), 12);
  });
});

describe('dropout', () => {
  const name = 'llama-biases';
  const { family, model } = familyOf(name);
  const examples = shortRows(family.config.vocabSize);
  const matrices = factorsOf(name, 'rank 4');
  const adapter = { matrices };
  const widthOf = (module: string) => (matrices.get(module)?.a.length ?? 0) / 4;
  const constant = (value: number): DropoutMasks => {
    return (module, example) =>
      new Float64Array((examples[example]?.inputIds.length ?? 0) * widthOf(module)).fill(value);
  };

  it('has the gradients of the loss under its masks', () => {
    // A third is dropped, in another pattern for every module and example; some modules drop nothing.
    const masks: DropoutMasks = (module, example) =>
      module.endsWith('up_proj')
        ? null
        : Float64Array.from(constant(1)(module, example) ?? [], (_, i) =>
            (i * 7 + example + module.length) % 3 === 0 ? 0 : 1.5,
          );
    const { loss, gradients } = referenceGradients(model, adapter, examples, masks);
    expect(loss).not.toBe(referenceLoss(model, adapter, examples));
    expectGradients(matrices, gradients, () => referenceLoss(model, adapter, examples, masks));
  });

  it('of everything leaves the bare model, of nothing the plain adapter', () => {
    const all = referenceGradients(model, adapter, examples, constant(0));
    expect(all.loss).toBe(referenceLoss(model, null, examples));
    for (const { a, b } of all.gradients.values()) for (const value of [...a, ...b]) expect(Math.abs(value)).toBe(0);
    expect(referenceGradients(model, adapter, examples, constant(1))).toEqual(
      referenceGradients(model, adapter, examples),
    );
  });
});

describe('what a token reaches', () => {
  /** Positions whose logits change when token `t` does. */
  function reached(name: string, t: number): number[] {
    const { family, model } = familyOf(name);
    const { vocabSize } = family.config;
    const ids = testExamples(vocabSize)[0]?.inputIds ?? [];
    const before = referenceLogits(model, null, ids);
    const after = referenceLogits(
      model,
      null,
      ids.map((id, i) => (i === t ? (id + 1) % vocabSize : id)),
    );
    const rows = ids.map((_id, row) => row);
    return rows.filter((row) =>
      before.subarray(row * vocabSize, (row + 1) * vocabSize).some((value, i) => value !== after[row * vocabSize + i]),
    );
  }
  const range = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, i) => first + i);

  it('is all after it and nothing before', () => {
    expect(reached('llama-3', 5)).toEqual(range(5, 18));
  });

  it('ends with the windows of all layers one after the other', () => {
    // Two layers of window 5: four tokens on in each.
    expect(reached('mistral', 5)).toEqual(range(5, 13));
    // The first layer of this one has no window.
    expect(reached('qwen2-window', 5)).toEqual(range(5, 18));
  });
});

describe('what is no input', () => {
  const { family, model } = familyOf('llama-2');
  const { vocabSize } = family.config;

  it('is refused', () => {
    expect(() => referenceLogits(model, null, [1, vocabSize])).toThrow(RangeError);
    expect(() => referenceLoss(model, null, [exampleOf([1, 2], [1, -100])])).toThrow(RangeError);
    const stray = { a: new Float64Array(40), b: new Float64Array(40), scale: 1 };
    const matrices = new Map([['model.layers.9.self_attn.q_proj', stray]]);
    expect(() => referenceLoss(model, { matrices }, [exampleOf([1, 2], [1, 2])])).toThrow(/layers\.9/);
  });
});
