// SwiGLU (Shazeer 2020) in float64: silu(gate) · up, silu(g) = g·σ(g).
import { at, build, type Numbers } from './numbers.ts';

/** 1 / (1 + e^−x), without overflow. */
export const sigmoid = (x: number): number => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));

/** silu(gate) · up, element by element. */
export const swiglu = (gate: Numbers, up: Numbers): Float64Array =>
  build(gate.length, (i) => at(gate, i) * sigmoid(at(gate, i)) * at(up, i));

/** dgate and dup from dout. */
export function swigluGradient(gate: Numbers, up: Numbers, dout: Numbers): { dgate: Float64Array; dup: Float64Array } {
  const dgate = build(gate.length, (i) => {
    const g = at(gate, i);
    return at(dout, i) * at(up, i) * sigmoid(g) * (1 + g * sigmoid(-g));
  });
  return { dgate, dup: build(gate.length, (i) => at(dout, i) * at(gate, i) * sigmoid(at(gate, i))) };
}
