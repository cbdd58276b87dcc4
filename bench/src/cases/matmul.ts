// Square products, ours beside the peers'; every result is checked before it is timed.
import type { Contender } from '../measure.ts';
import type { Library, MatmulShape } from '../peers/peer.ts';
import { type Context, kernelEffort, measure, reasonToLeaveOut } from './context.ts';
import { filled } from './fill.ts';

const CHECKED = 32;

/** Throws where some elements of c are not what float64 gives within float32's means. */
export function checkProduct(
  { kind, rows, columns, inner }: MatmulShape,
  a: Float32Array,
  b: Float32Array,
  c: Float32Array,
): void {
  if (c.length !== rows * columns) throw new Error(`The product has ${c.length} elements, not ${rows * columns}.`);
  for (let n = 0; n < CHECKED; n += 1) {
    const at = Math.floor((n * (c.length - 1)) / (CHECKED - 1));
    const [row, column] = [Math.floor(at / columns), at % columns];
    let sum = 0;
    let size = 0;
    for (let k = 0; k < inner; k += 1) {
      const term = (a[row * inner + k] ?? 0) * (b[kind === 'NT' ? column * inner + k : k * columns + column] ?? 0);
      sum += term;
      size += Math.abs(term);
    }
    if (!(Math.abs((c[at] ?? Number.NaN) - sum) <= 1e-5 * size))
      throw new Error(`The product is wrong at [${row}, ${column}]: ${c[at]}, not ${sum}.`);
  }
}

function contender(
  library: Library,
  shape: MatmulShape,
  [a, b]: readonly [Float32Array, Float32Array],
  leftOut?: string,
): Contender {
  return {
    name: library.name,
    leftOut,
    async prepare() {
      const product = await library.matmul(shape, a, b);
      checkProduct(shape, a, b, await product.read());
      return product;
    },
  };
}

/** Squares of `size`; the smallest tells the peers' rates. */
export async function matmulCase(context: Context, size: number, kind: MatmulShape['kind']): Promise<void> {
  const id = `matmul-${kind.toLowerCase()}-${size}`;
  if (!context.wants(id)) return;
  const { ours, peers, options } = context;
  const effort = kernelEffort(options);
  const shape = { kind, rows: size, columns: size, inner: size };
  const operands = [filled(size * size, 1), filled(size * size, 2)] as const;
  const flops = 2 * size ** 3;
  const contenders = [
    contender(ours, shape, operands),
    ...peers.map((peer) =>
      contender(peer.library, shape, operands, reasonToLeaveOut(context, peer, flops, effort.budgetMs)),
    ),
  ];
  const { timings } = await measure(
    context,
    { id, group: 'matmul', what: `${kind} ${size} × ${size} × ${size}`, flops, bytes: 12 * size * size },
    contenders,
    effort,
  );
  for (const peer of peers) {
    const time = timings.find(({ name }) => name === peer.library.name)?.median;
    if (time) peer.gflops ??= flops / time / 1e6;
  }
}
