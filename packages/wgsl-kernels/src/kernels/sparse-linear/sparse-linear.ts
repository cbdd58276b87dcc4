// The branch of a linear layer that is a sparse matrix S [out, in] with trained elements at fixed places: y += x·Sᵀ, the
// gradient of x, and that of the elements (the masked gradient of W). Every row has equally many elements, so that no
// invocation waits for a long one; lists by column, made once on the CPU, spare the transposed product its atomics.
import { foldWorkgroups, type KernelCall } from '../../runtime/call.ts';
import { layOutParams, paramOffset, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import code from './sparse-linear.wgsl?raw';

export const sparseLinearShader: ShaderSource = { name: 'sparse-linear', code };

/** Rows of x an invocation has, and invocations of a workgroup. */
const ROWS = 4;
const INVOCATIONS = 64;

/** The places of a matrix's elements by column. */
export interface ColumnLists {
  /** [in + 1]: where the list of each column begins. */
  readonly starts: Uint32Array;
  /** [out · perRow]: places in the values, column after column, ascending within each. */
  readonly entries: Uint32Array;
}

/** Lists by column from the columns [out, perRow] by row. Throws RangeError for a column beyond `inner`. */
export function columnLists(columns: Uint32Array, inner: number): ColumnLists {
  const starts = new Uint32Array(inner + 1);
  for (const column of columns) {
    if (column >= inner) throw new RangeError(`Column ${column} of a matrix of ${inner}.`);
    starts[column + 1] = (starts[column + 1] as number) + 1;
  }
  for (let column = 0; column < inner; column += 1)
    starts[column + 1] = (starts[column + 1] as number) + (starts[column] as number);
  const next = starts.slice(0, inner);
  const entries = new Uint32Array(columns.length);
  for (const [place, column] of columns.entries()) {
    const at = next[column] as number;
    entries[at] = place;
    next[column] = at + 1;
  }
  return { starts, entries };
}

/** Where the elements of S lie, on the GPU. */
export interface SparsePlaces {
  /** u32 [out, perRow] */
  readonly columns: Tensor;
  /** u32 [in + 1] and u32 [out · perRow], as {@link columnLists} makes them. */
  readonly starts: Tensor;
  readonly entries: Tensor;
}

export interface SparseForward {
  /** [N, in] */
  readonly x: Tensor;
  readonly places: Pick<SparsePlaces, 'columns'>;
  /** [out, perRow] */
  readonly values: Tensor;
  /** [N, out], added to. */
  readonly y: Tensor;
}

interface Sizes {
  readonly rows: number;
  readonly inner: number;
  readonly outputs: number;
  readonly perRow: number;
}

function sizesOf(x: Tensor, y: Tensor, columns: Tensor): Sizes {
  const [rows, inner] = matrixShape('sparse-linear', 'x', x);
  const [outputs, perRow] = matrixShape('sparse-linear', 'columns', columns);
  expectShape('sparse-linear', 'y', y, [rows, outputs]);
  return { rows, inner, outputs, perRow };
}

const FIRST_GROUP = paramOffset(sparseLinearShader, 'firstGroup');

function call(
  entryPoint: 'forward' | 'input_gradient' | 'value_gradient',
  sizes: Sizes,
  bound: ReadonlyMap<number, Tensor>,
  { workgroups, accumulate = false, bytes }: { workgroups: number; accumulate?: boolean; bytes: number },
): KernelCall {
  return {
    name: `sparse-${entryPoint.replace('_', '-')}`,
    shader: sparseLinearShader,
    entryPoint,
    bindings: [...bound.values()],
    bindingSlots: [...bound.keys()],
    uniforms: layOutParams(sparseLinearShader, { ...sizes, accumulate: accumulate ? 1 : 0, firstGroup: 0 }),
    workgroups: foldWorkgroups(workgroups),
    firstGroup: FIRST_GROUP,
    flops: 2 * sizes.rows * sizes.outputs * sizes.perRow,
    bytes,
  };
}

const tiles = (rows: number, width: number): number => Math.ceil(rows / ROWS) * Math.ceil(width / INVOCATIONS);

/** y += x·Sᵀ. Throws GpuError 'shape', as {@link sparseBackward} does. */
export function sparseForward({ x, places: { columns }, values, y }: SparseForward): KernelCall[] {
  const sizes = sizesOf(x, y, columns);
  expectShape('sparse-linear', 'values', values, columns.shape);
  const bound = new Map([x, y, columns, values].map((tensor, i) => [i + 1, tensor]));
  const bytes = x.bytes + columns.bytes + values.bytes + 2 * y.bytes;
  return [call('forward', sizes, bound, { workgroups: tiles(sizes.rows, sizes.outputs), bytes })];
}

export interface SparseBackward {
  /** [N, in], as in the forward pass. */
  readonly x: Tensor;
  /** [N, out] */
  readonly dy: Tensor;
  readonly places: SparsePlaces;
  readonly values: Tensor;
  /** [N, in], added to: dy·S; left out where no gradient flows further down. */
  readonly dx?: Tensor;
  /** [out, perRow]: dyᵀ·x at the places; left out where the elements are not trained. */
  readonly dvalues?: Tensor;
}

/** `accumulateValues` adds to `dvalues` instead of replacing it: gradients of several micro-batches. */
export function sparseBackward(
  { x, dy, places, values, dx, dvalues }: SparseBackward,
  { accumulateValues = false }: { accumulateValues?: boolean } = {},
): KernelCall[] {
  const { columns, starts, entries } = places;
  const sizes = sizesOf(x, dy, columns);
  const { rows, inner, outputs, perRow } = sizes;
  expectShape('sparse-linear', 'values', values, columns.shape);
  const calls: KernelCall[] = [];
  if (dx) {
    expectShape('sparse-linear', 'dx', dx, [rows, inner]);
    expectShape('sparse-linear', 'starts', starts, [inner + 1]);
    expectShape('sparse-linear', 'entries', entries, [outputs * perRow]);
    const bound = new Map([
      [2, dy],
      [4, values],
      [5, starts],
      [6, entries],
      [7, dx],
    ]);
    const bytes = dy.bytes + values.bytes + starts.bytes + entries.bytes + 2 * dx.bytes;
    calls.push(call('input_gradient', sizes, bound, { workgroups: tiles(rows, inner), bytes }));
  }
  if (dvalues) {
    expectShape('sparse-linear', 'dvalues', dvalues, columns.shape);
    const bound = new Map([
      [1, x],
      [2, dy],
      [3, columns],
      [8, dvalues],
    ]);
    const bytes = x.bytes + dy.bytes + columns.bytes + dvalues.bytes * (accumulateValues ? 2 : 1);
    const workgroups = Math.ceil((outputs * perRow) / INVOCATIONS);
    calls.push(call('value_gradient', sizes, bound, { workgroups, accumulate: accumulateValues, bytes }));
  }
  return calls;
}
