// Every shader the package exports, whatever its folder, and attention for the head sizes of real models, compiles without
// a warning at the limits every device has.
import { beforeAll, describe, expect, it } from 'vitest';
import * as everything from '../index.ts';
import { openTestGpu } from '../testing/index.ts';
import type { Gpu } from './device.ts';
import { canRun, pipelineFor, type ShaderSource, shaderWarnings } from './shader.ts';

const isShader = (value: unknown): value is ShaderSource =>
  typeof value === 'object' && value !== null && 'code' in value && 'name' in value;

/** Shaders among the exports, alone or in records of records. */
function shadersIn(value: unknown): ShaderSource[] {
  if (isShader(value)) return [value];
  if (typeof value !== 'object' || value === null) return [];
  return Object.values(value).flatMap(shadersIn);
}

const HEAD_SIZES = [1, 7, 10, 64, 128, 256];
const shaders = [...shadersIn({ ...everything }), ...HEAD_SIZES.flatMap((size) => everything.attentionShaders(size))];
const entryPoints = shaders.flatMap((shader) =>
  [...shader.code.matchAll(/@compute[^{]*?fn (\w+)\(/g)].map(([, entryPoint = '']) => ({ shader, entryPoint })),
);

describe('shaders', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  it('are all found, each under a name of its own', () => {
    expect(new Set(shaders.map(({ name }) => name)).size).toBe(shaders.length);
    expect(shaders.length).toBeGreaterThan(40);
    for (const shader of shaders) expect(entryPoints.some((each) => each.shader === shader)).toBe(true);
  });

  it('hold every text of the package', () => {
    const texts = import.meta.glob<string>('../**/*.wgsl', { query: '?raw', import: 'default', eager: true });
    expect(Object.keys(texts).length).toBeGreaterThan(20);
    const missing = Object.entries(texts).filter(([, text]) => !shaders.some(({ code }) => code.includes(text)));
    expect(missing.map(([file]) => file)).toEqual([]);
  });

  it('compile without a warning, every entry point', async () => {
    for (const { shader, entryPoint } of entryPoints) {
      // A variant for an optional feature is tried where the feature is.
      if (!canRun(gpu, shader)) continue;
      const key = { shader, entryPoint, constants: {} };
      expect(await shaderWarnings(gpu, key), `${shader.name}/${entryPoint}`).toEqual([]);
      await pipelineFor(gpu, key);
    }
  });
});
