// Our element-wise passes with their arithmetic taken out: each loads and stores the same bytes in the same places. What
// that takes of the time copying would is the most that a pass of its shape can reach. The results are wrong.
import type { KernelCall, ShaderSource } from '@weft/wgsl-kernels';

/** What a function of a shader does instead, by the shader's name and the function's. */
const MOVES: readonly (readonly [shader: string, name: string, body: string])[] = [
  ['swiglu', 'forward_at', 'out[i] = gate[i] + up[i];'],
  ['swiglu', 'backward_at', 'dup[i] = out[i];\n    dgate[i] = gate[i] + up[i];'],
  [
    'adamw',
    'step_at',
    'let g = gradient[i];\n    first[i] = first[i] + g;\n    second[i] = second[i] + g;\n    parameter[i] = parameter[i] + g;',
  ],
];

/** The shader with nothing but its loads and stores; null for one that is not known here. */
export function movesOnly(shader: ShaderSource): ShaderSource | null {
  let { code } = shader;
  for (const [name, fn, body] of MOVES) {
    if (!shader.name.startsWith(name)) continue;
    const whole = new RegExp(`(fn ${fn}\\([^)]*\\) \\{\\n  if \\(i < params\\.count\\) \\{)[^}]*\\}`);
    if (!whole.test(code)) throw new Error(`${shader.name} has no ${fn} that guards its elements`);
    code = code.replace(whole, `$1\n    ${body}\n  }`);
  }
  return code === shader.code ? null : { ...shader, name: `${shader.name} moves`, code };
}

/** A call that only moves, with its variants; null where there is something in it that is not known here. */
export function movesOf(call: KernelCall): KernelCall | null {
  const shader = movesOnly(call.shader);
  const variants = (call.variants ?? []).flatMap((variant) => {
    const moved = movesOnly(variant.shader);
    return moved ? [{ ...variant, shader: moved }] : [];
  });
  return shader ? { ...call, shader, variants, tuningClass: `${call.tuningClass} moves` } : null;
}
