import { beforeAll, describe, expect, it } from 'vitest';
import { at, denseOfSparse, matmulMagnitude, sparseLinear, sparseLinearGradient } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { shaderWarnings } from '../../runtime/shader.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { columnLists, sparseBackward, sparseForward, sparseLinearShader } from './sparse-linear.ts';

/** `perRow` different columns in every row, ascending; every third row has the same, so that lists differ in length. */
function drawColumns(outputs: number, inner: number, perRow: number): Uint32Array {
  const random = randomNumbers(outputs + inner);
  return Uint32Array.from(
    Array.from({ length: outputs }, (_, row) => {
      const keys = random.floats(inner);
      const order = [...keys.keys()].sort((a, b) => (row % 3 === 0 ? a - b : at(keys, a) - at(keys, b)));
      return order.slice(0, perRow).sort((a, b) => a - b);
    }).flat(),
  );
}

describe('lists by column', () => {
  it('hold every place once, in the order of columns and rows', () => {
    const columns = drawColumns(7, 5, 2);
    const { starts, entries } = columnLists(columns, 5);
    expect([...entries].sort((a, b) => a - b)).toEqual([...columns.keys()]);
    for (let column = 0; column < 5; column += 1) {
      const own = [...entries.subarray(at(starts, column), at(starts, column + 1))];
      expect(own.every((place) => columns[place] === column)).toBe(true);
      expect(own).toEqual([...own].sort((a, b) => a - b));
    }
    expect(starts[5]).toBe(14);
    expect(() => columnLists(Uint32Array.of(5), 5)).toThrow('Column 5 of a matrix of 5.');
  });
});

describe('sparse-linear', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  function inputsOf(rows: number, inner: number, outputs: number, perRow: number) {
    const random = randomNumbers(rows * outputs);
    const columns = drawColumns(outputs, inner, perRow);
    const lists = columnLists(columns, inner);
    return {
      x: { shape: [rows, inner], data: random.floats(rows * inner) },
      values: { shape: [outputs, perRow], data: random.floats(outputs * perRow) },
      columns: { shape: [outputs, perRow], data: columns },
      starts: { shape: [inner + 1], data: lists.starts },
      entries: { shape: [outputs * perRow], data: lists.entries },
      y: { shape: [rows, outputs], data: random.floats(rows * outputs) },
      dx: { shape: [rows, inner], data: random.floats(rows * inner) },
      dvalues: { shape: [outputs, perRow], data: random.floats(outputs * perRow) },
    };
  }

  it.each([
    [1, 1, 1, 1],
    [3, 5, 7, 2],
    [4, 64, 63, 3],
    [5, 63, 65, 9],
    [67, 130, 64, 13],
    [131, 24, 130, 24],
  ])('of %i rows, [%i → %i], %i elements a row', async (rows, inner, outputs, perRow) => {
    const inputs = inputsOf(rows, inner, outputs, perRow);
    const [x, values, columns] = [inputs.x.data, inputs.values.data, inputs.columns.data];
    const layer = { x, values, columns, rows, perRow };
    const dense = denseOfSparse(layer, inner);
    const dy = inputs.y.data;
    // A sum of n products errs by (n + 1)·ε times its magnitudes at most, whatever its order.
    const within = (
      name: string,
      found: Float32Array,
      expected: Float64Array,
      count: number,
      magnitude: Float64Array,
    ) => expectWithin(name, found, expected, (i) => EPSILON * (count + 2) * at(magnitude, i));
    const plus = (a: Float64Array, b: Float32Array, sign = (value: number) => value) =>
      a.map((value, i) => value + sign(at(b, i)));

    const forward = { ...inputs, y: { ...inputs.y, written: true } };
    const { y } = await runKernel(gpu, forward, (t) => sparseForward({ ...t, places: t }));
    const yMagnitude = matmulMagnitude('NT', x, dense, { rows, columns: outputs, inner });
    within('y', y, plus(sparseLinear(layer), dy), perRow, plus(yMagnitude, dy, Math.abs));

    const expected = sparseLinearGradient(layer, dy);
    const dxMagnitude = matmulMagnitude('NN', dy, dense, { rows, columns: inner, inner: outputs });
    const whole = matmulMagnitude('TN', dy, x, { rows: outputs, columns: inner, inner: rows });
    const dvMagnitude = expected.dvalues.map((_, k) => at(whole, Math.floor(k / perRow) * inner + at(columns, k)));
    for (const accumulateValues of [false, true]) {
      const backward = {
        ...inputs,
        dx: { ...inputs.dx, written: true },
        dvalues: { ...inputs.dvalues, written: true },
      };
      const { dx, dvalues } = await runKernel(gpu, backward, ({ y: given, ...t }) =>
        sparseBackward({ ...t, dy: given, places: t }, { accumulateValues }),
      );
      const before = accumulateValues ? inputs.dvalues.data : new Float32Array(inputs.dvalues.data.length);
      within('dx', dx, plus(expected.dx, inputs.dx.data), outputs, plus(dxMagnitude, inputs.dx.data, Math.abs));
      within('dvalues', dvalues, plus(expected.dvalues, before), rows, plus(dvMagnitude, before, Math.abs));
    }
  });

  it('computes only what is asked for', async () => {
    const inputs = inputsOf(5, 6, 7, 2);
    const written = { ...inputs, dx: { ...inputs.dx, written: true }, dvalues: { ...inputs.dvalues, written: true } };
    for (const [without, name] of [
      ['dx', 'sparse-value-gradient'],
      ['dvalues', 'sparse-input-gradient'],
    ] as const) {
      const { [without]: kept } = await runKernel(gpu, written, ({ y, dx, dvalues, ...t }) => {
        const calls = sparseBackward({ ...t, dy: y, places: t, ...(without === 'dx' ? { dvalues } : { dx }) });
        expect(calls.map((call) => call.name)).toEqual([name]);
        return calls;
      });
      expect(kept).toEqual(inputs[without].data);
    }
  });

  it('does the same in parts', async () => {
    const inputs = inputsOf(67, 130, 140, 13);
    const written = {
      ...inputs,
      y: { ...inputs.y, written: true },
      dx: { ...inputs.dx, written: true },
      dvalues: { ...inputs.dvalues, written: true },
    };
    const run = (cut: boolean) =>
      runKernel(gpu, written, ({ y, ...t }) => {
        const calls = [...sparseForward({ ...t, y, places: t }), ...sparseBackward({ ...t, dy: y, places: t })];
        if (!cut) return calls;
        return calls.flatMap((call) => {
          const count = call.workgroups[0];
          const half = Math.ceil(count / 2);
          return [0, half].map((first) => {
            const uniforms = call.uniforms.slice(0);
            new DataView(uniforms).setUint32(call.firstGroup ?? Number.NaN, first, true);
            return { ...call, uniforms, workgroups: [first === 0 ? half : count - half, 1, 1] as const };
          });
        });
      });
    expect(await run(true)).toEqual(await run(false));
  });

  it('refuses other shapes', async () => {
    const inputs = inputsOf(5, 6, 7, 2);
    const run = (values: number) =>
      runKernel(gpu, { ...inputs, y: { ...inputs.y, written: true } }, (t) =>
        sparseForward({ ...t, places: t, values: { ...t.values, shape: [values, 2] } }),
      );
    await expect(run(8)).rejects.toThrow('sparse-linear: values (values) is [8,2] where [7,2] is needed.');
    await expect(
      runKernel(gpu, inputs, ({ y, ...t }) => sparseBackward({ ...t, dy: y, places: { ...t, starts: t.entries } })),
    ).rejects.toMatchObject({ code: 'shape' });
  });

  it('compiles without a warning', async () => {
    for (const entryPoint of ['forward', 'input_gradient', 'value_gradient'])
      expect(await shaderWarnings(gpu, { shader: sparseLinearShader, entryPoint, constants: {} })).toEqual([]);
  });
});
