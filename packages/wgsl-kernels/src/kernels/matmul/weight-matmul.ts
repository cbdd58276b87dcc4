// Products with a frozen weight of any type: NT for x·Wᵀ, NN for dy·W, over the same parts, with a low-rank branch, a bias and
// a residual added on the way. One dispatch a part; each comes in several variants, of which the plan takes the one that
// the adapter at hand runs fastest.
import { foldWorkgroups, type KernelCall, type KernelVariant } from '../../runtime/call.ts';
import { layOutParams, paramOffset, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, matrixShape, subTensor, type Tensor } from '../../runtime/tensor.ts';
import { rowStride, type WeightType } from '../../weights/encode.ts';
import { weightBindings } from '../../weights/shaders.ts';
import type { WeightMatrix, WeightPart } from '../../weights/weight-matrix.ts';
import { ANY_SIZES, type MatmulShape, type Product, productShader, shapeClass, workgroupsOf } from './variants.ts';

/** A low-rank product that is added: s·(x·Aᵀ)·Bᵀ forward, dxa·A backward. */
export interface Branch {
  /** [N, r] */
  readonly input: Tensor;
  /** NT: B [out, r]; NN: A [r, in]. */
  readonly factor: Tensor;
  /** s; 1 when left out. */
  readonly scale?: number;
}

export interface MatmulOptions {
  /** Factor of the product and its branch; 1 when left out. */
  readonly alpha?: number;
  /** Add to what is there instead of replacing it. */
  readonly accumulate?: boolean;
  readonly branch?: Branch;
  /** One element a column [columns], added. */
  readonly bias?: Tensor;
  /** Laid out as the output, added. */
  readonly residual?: Tensor;
}

interface PartOfProduct {
  readonly form: 'nt' | 'nn';
  readonly type: WeightType;
  readonly input: Tensor;
  readonly part: WeightPart;
  readonly output: Tensor;
  readonly params: {
    readonly rows: number;
    readonly columns: number;
    readonly inner: number;
    readonly aStride: number;
    readonly aColumn: number;
    readonly bStride: number;
    readonly cStride: number;
    readonly cColumn: number;
  };
}

/** Sizes whose rows are whole vectors of four everywhere they are read. */
function readsVectors({ form, params }: PartOfProduct): boolean {
  const { inner, columns, aStride } = params;
  return inner % 4 === 0 && aStride % 4 === 0 && (form === 'nt' || columns % 4 === 0);
}

function call(
  each: PartOfProduct,
  { alpha = 1, accumulate = false, branch, bias, residual }: MatmulOptions,
): KernelCall[] {
  const { form, type, input, part, output, params } = each;
  const { rows, columns, inner } = params;
  const vectors = readsVectors(each);
  const rank = branch?.input.shape[1] ?? 0;
  const product: Product = {
    form,
    type,
    branch: branch !== undefined && vectors && rank % 4 === 0,
    epilogue: {
      vectors: vectors && params.cStride % 4 === 0,
      bias: bias !== undefined,
      residual: residual !== undefined,
    },
  };
  const { name: className, shapes } = vectors
    ? shapeClass(product, params)
    : { name: ANY_SIZES.name, shapes: [ANY_SIZES] };
  const uniforms = (shader: ShaderSource) =>
    layOutParams(shader, {
      ...params,
      firstGroup: 0,
      transposed: form === 'nt' ? 1 : 0,
      accumulate: accumulate ? 1 : 0,
      residual: residual ? 1 : 0,
      alpha,
      rank: product.branch ? rank : 0,
      branchScale: branch?.scale ?? 1,
    });
  const variantOf = (shape: MatmulShape): KernelVariant => {
    const shader = productShader(product, shape);
    return {
      variant: shape.name,
      suits: shape.suits,
      ...(shape.subgroup ? { subgroup: shape.subgroup } : {}),
      shader,
      entryPoint: 'main',
      workgroups: foldWorkgroups(workgroupsOf(shape, params)),
    };
  };
  const variants = shapes.map(variantOf);
  const [first] = variants;
  if (!first) throw new RangeError(`There is no shader for ${form} ${type}.`);
  const { bindings, bindingSlots } = weightBindings(input, part, output);
  const fused = product.branch ? branch : undefined;
  const added = [fused?.input, fused?.factor, bias, residual];
  const main: KernelCall = {
    name: `matmul-${form}`,
    shader: first.shader,
    entryPoint: first.entryPoint,
    workgroups: first.workgroups,
    ...(variants.length > 1 ? { variants, tuningClass: `matmul, ${className}` } : {}),
    bindings: [...bindings, ...added.flatMap((tensor) => (tensor ? [tensor] : []))],
    bindingSlots: [...bindingSlots, ...added.flatMap((tensor, i) => (tensor ? [5 + i] : []))],
    uniforms: uniforms(first.shader),
    firstGroup: paramOffset(first.shader, 'firstGroup'),
    flops: 2 * rows * columns * (inner + (fused ? rank : 0)),
    bytes:
      part.data.bytes +
      (part.scales?.bytes ?? 0) +
      4 * rows * (columns + inner) +
      (fused ? fused.input.bytes + fused.factor.bytes : 0) +
      (residual ? 4 * rows * columns : 0),
  };
  if (!branch || fused) return [main];
  // A branch of any rank, added by a product of its own.
  const factor = { firstRow: 0, rows: branch.factor.shape[0] ?? 0, data: branch.factor, scales: null };
  const alone: PartOfProduct = {
    form,
    type: 'f32',
    input: branch.input,
    part: factor,
    output,
    params: { ...params, inner: rank, aStride: rank, aColumn: 0, bStride: branch.factor.shape[1] ?? 1 },
  };
  return [main, ...call(alone, { alpha: alpha * (branch.scale ?? 1), accumulate: true })];
}

/** y [N, out] (+)= α · (x [N, in] · Wᵀ + branch) + bias + residual. Each part of W writes its columns of y. Throws GpuError 'shape'. */
export function weightNT(
  { x, w, y }: { x: Tensor; w: WeightMatrix; y: Tensor },
  options: MatmulOptions = {},
): KernelCall[] {
  const [rows] = matrixShape('weightNT', 'x', x);
  const { branch, bias, residual } = options;
  expectShape('weightNT', 'x', x, [rows, w.columns]);
  expectShape('weightNT', 'y', y, [rows, w.rows]);
  if (bias) expectShape('weightNT', 'bias', bias, [w.rows]);
  if (residual) expectShape('weightNT', 'residual', residual, y.shape);
  const rank = branch?.input.shape[1] ?? 0;
  if (branch) {
    expectShape('weightNT', 'branch input', branch.input, [rows, rank]);
    expectShape('weightNT', 'branch factor', branch.factor, [w.rows, rank]);
  }
  return w.parts.flatMap((part) => {
    const params = {
      rows,
      columns: part.rows,
      inner: w.columns,
      aStride: w.columns,
      aColumn: 0,
      bStride: rowStride(w.type, w.columns),
      cStride: w.rows,
      cColumn: part.firstRow,
    };
    const factor =
      branch && w.parts.length > 1 ? subTensor(branch.factor, part.firstRow * rank, [part.rows, rank]) : branch?.factor;
    return call(
      { form: 'nt', type: w.type, input: x, part, output: y, params },
      { ...options, ...(branch && factor ? { branch: { ...branch, factor } } : {}) },
    );
  });
}

/** dx [N, in] (+)= α · (dy [N, out] · W + branch) + residual, summed over the parts of W in order. Throws GpuError 'shape'. */
export function weightNN(
  { dy, w, dx }: { dy: Tensor; w: WeightMatrix; dx: Tensor },
  { branch, bias, residual, ...options }: MatmulOptions = {},
): KernelCall[] {
  const [rows] = matrixShape('weightNN', 'dy', dy);
  expectShape('weightNN', 'dy', dy, [rows, w.rows]);
  expectShape('weightNN', 'dx', dx, [rows, w.columns]);
  if (bias) expectShape('weightNN', 'bias', bias, [w.columns]);
  if (residual) expectShape('weightNN', 'residual', residual, dx.shape);
  if (branch) {
    const rank = branch.input.shape[1] ?? 0;
    expectShape('weightNN', 'branch input', branch.input, [rows, rank]);
    expectShape('weightNN', 'branch factor', branch.factor, [rank, w.columns]);
  }
  return w.parts.flatMap((part) => {
    const isFirst = part.firstRow === 0;
    const params = {
      rows,
      columns: w.columns,
      inner: part.rows,
      aStride: w.rows,
      aColumn: part.firstRow,
      bStride: rowStride(w.type, w.columns),
      cStride: w.columns,
      cColumn: 0,
    };
    return call(
      { form: 'nn', type: w.type, input: dy, part, output: dx, params },
      {
        ...options,
        // What is added once goes with the first part.
        ...(isFirst && branch ? { branch } : {}),
        ...(isFirst && bias ? { bias } : {}),
        ...(isFirst && residual ? { residual } : {}),
        accumulate: options.accumulate === true || !isFirst,
      },
    );
  });
}
