// Our products with their loads taken out: what arithmetic and keeping sums cost alone, and so the most that better
// loading could give. The results are wrong, and only the time is of interest.
import { ArenaPlan, type KernelCall, matmulNN, matmulNT, type ShaderSource } from '@weft/wgsl-kernels';
import type { MatmulShape } from '../peers/peer.ts';
import { type Context, kernelEffort, measure } from './context.ts';
import { planContender } from './kernels.ts';

/** What a tile reads in every step of k: rows of a, vectors of b. */
const LOAD = /let (\w+) = (?:a|weight4)[[(](base_\w+ \+ [^\])]*)[\])];/g;
const LOOP = 'for (var k = 0u;';

/** The shader with its operands made from the places they lie at; null for one that does not load them to registers. */
export function withoutLoads(shader: ShaderSource): ShaderSource | null {
  const code = shader.code.replace(LOAD, 'let $1 = vec4f(f32($2));');
  if (code === shader.code) return null;
  // The bindings stay in use, by what never happens.
  const used = `if (params.inner == 0u) { s0_0 = a[0] + weight4(0u); }\n    ${LOOP}`;
  return { ...shader, name: `${shader.name} without loads`, code: code.replace(LOOP, used) };
}

function ablated(call: KernelCall): KernelCall | null {
  const variants = (call.variants ?? []).flatMap((variant) => {
    const shader = withoutLoads(variant.shader);
    return shader ? [{ ...variant, shader }] : [];
  });
  const [first] = variants;
  // Classes of its own: nothing that is found here says how to run the whole product.
  return first ? { ...call, ...first, variants, tuningClass: `${call.tuningClass} without loads` } : null;
}

type Sizes = readonly [rows: number, columns: number, inner: number];

/** A square, and the product that a step of S0.26 has most of: its sums are short, so that beginning and storing tiles counts. */
const SIZES: readonly (readonly [name: string, sizes: Sizes])[] = [
  ['512', [512, 512, 512]],
  ['s026-gate', [1024, 172, 64]],
];

/** Only where a variant that keeps its operands in registers runs is there something to take out. */
export async function ablationCases(context: Context): Promise<void> {
  for (const [name, sizes] of SIZES)
    for (const kind of ['NT', 'NN'] as const)
      await ablationCase(context, `ablation-${kind.toLowerCase()}-${name}`, kind, sizes);
}

async function ablationCase(
  context: Context,
  id: string,
  kind: MatmulShape['kind'],
  [rows, columns, inner]: Sizes,
): Promise<void> {
  if (!context.wants(id)) return;
  const memory = new ArenaPlan();
  const a = memory.tensor('a', [rows, inner]);
  const b = memory.tensor('b', kind === 'NT' ? [columns, inner] : [inner, columns]);
  const c = memory.tensor('c', [rows, columns]);
  const calls = (kind === 'NT' ? matmulNT({ a, b, c }) : matmulNN({ a, b, c })).flatMap((call) => ablated(call) ?? []);
  if (calls.length === 0) return;
  await measure(
    context,
    {
      id,
      group: 'ablation',
      what: `${kind} [${rows}, ${columns}, ${inner}] without its loads`,
      flops: 2 * rows * columns * inner,
    },
    [planContender({ name: context.ours.name, gpu: context.gpu, memory, calls })],
    kernelEffort(context.options),
  );
}
