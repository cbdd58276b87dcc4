import { ADAMW_HYPER_SIZE, ArenaPlan, adamw, rmsNormForward, swigluBackward, swigluForward } from '@weft/wgsl-kernels';
import { describe, expect, it } from 'vitest';
import { movesOf } from './moves.ts';

const memory = new ArenaPlan();
const flat = (name: string) => memory.tensor(name, [64, 64]);
const [gate, up, out, dgate, dup] = [flat('gate'), flat('up'), flat('out'), flat('dgate'), flat('dup')];
const [hyper, norm] = [memory.tensor('hyper', [ADAMW_HYPER_SIZE]), memory.tensor('norm', [2])];

describe('passes that only move', () => {
  it.each([
    ['SwiGLU forward', swigluForward({ gate, up, out }), /exp\(/, ['gate[i]', 'up[i]', 'out[i] =']],
    [
      'SwiGLU backward',
      swigluBackward({ gate, up, dout: out, dgate, dup }),
      /fma\(/,
      ['gate[i]', 'up[i]', 'out[i]', 'dgate[i] =', 'dup[i] ='],
    ],
    [
      'AdamW',
      adamw({ param: gate, grad: up, m: dgate, v: dup, hyper, norm }),
      /sqrt\(v/,
      ['gradient[i]', 'first[i] =', 'second[i] =', 'parameter[i] ='],
    ],
  ])('%s keeps its loads and stores, and nothing else', (_, calls, arithmetic, kept) => {
    for (const call of calls) {
      const moved = movesOf(call);
      expect(moved?.variants?.length).toBe(call.variants?.length);
      for (const [i, { shader }] of [call, ...(call.variants ?? [])].entries()) {
        const code = [moved?.shader, ...(moved?.variants ?? []).map((each) => each.shader)][i]?.code ?? '';
        expect(shader.code).toMatch(arithmetic);
        const body = /fn (?:forward_at|backward_at|step_at)[\s\S]*?\n}\n/g;
        expect(code.match(body)?.join('')).not.toMatch(arithmetic);
        for (const part of kept) expect(code).toContain(part);
      }
    }
  });

  it('are not made of other kernels', () => {
    const [x, y, weight, rstd] = [flat('x'), flat('y'), memory.tensor('w', [64]), memory.tensor('r', [64])];
    for (const call of rmsNormForward({ x, weight, y, rstd }, { eps: 1e-5 })) expect(movesOf(call)).toBeNull();
  });
});
