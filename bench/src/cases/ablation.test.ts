import { weightMatmulShaders } from '@weft/wgsl-kernels';
import { describe, expect, it } from 'vitest';
import { withoutLoads } from './ablation.ts';

describe('products without their loads', () => {
  const shaders = weightMatmulShaders.filter(({ name }) => / f32 (own|quad) /.test(name));

  it('read nothing in their loop over k', () => {
    expect(shaders.length).toBeGreaterThan(10);
    for (const shader of shaders) {
      expect(shader.code).toMatch(/weight4\(base_|a\[base_/);
      const code = withoutLoads(shader)?.code ?? '';
      expect(code, shader.name).not.toMatch(/weight4\(base_|a\[base_/);
      expect(code).toContain('vec4f(f32(base_');
    }
  });

  it('are refused where there is no such loop', () => {
    expect(withoutLoads({ name: 'other', code: 'fn main() {}' })).toBeNull();
  });
});
