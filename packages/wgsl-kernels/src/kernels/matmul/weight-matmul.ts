// Products with a frozen weight of any type: NT for x·Wᵀ, NN for dy·W, over the same parts. One dispatch a part.
import { foldWorkgroups, type KernelCall } from '../../runtime/plan.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import { rowStride, type WeightType } from '../../weights/encode.ts';
import { weightBindings, weightElementCode, weightVectorCode } from '../../weights/shaders.ts';
import type { WeightMatrix, WeightPart } from '../../weights/weight-matrix.ts';
import anyCode from './matmul.wgsl?raw';
import nnCode from './nn.wgsl?raw';
import ntCode from './nt.wgsl?raw';
import paramsCode from './params.wgsl?raw';
import storeCode from './store.wgsl?raw';
import storeOddCode from './store-odd.wgsl?raw';

export interface MatmulOptions {
  /** Factor of the product; 1 when left out. */
  readonly alpha?: number;
  /** Add to what is there instead of replacing it. */
  readonly accumulate?: boolean;
}

/** The shaders of one weight type: NT and NN read vectors of four, `any` serves all other sizes. */
export interface WeightMatmulShaders {
  readonly nt: ShaderSource;
  /** NT for y rows that are no whole vectors. */
  readonly ntOdd: ShaderSource;
  readonly nn: ShaderSource;
  readonly any: ShaderSource;
}

function shadersFor(type: WeightType): WeightMatmulShaders {
  const suffix = type === 'f32' ? '' : `-${type}`;
  const vectors = paramsCode + weightVectorCode[type];
  return {
    nt: { name: `matmul-nt${suffix}`, code: ntCode + vectors + storeCode },
    ntOdd: { name: `matmul-nt-odd${suffix}`, code: ntCode + vectors + storeOddCode },
    nn: { name: `matmul-nn${suffix}`, code: nnCode + vectors + storeCode },
    any: { name: `matmul${suffix}`, code: anyCode + paramsCode + weightElementCode[type] },
  };
}

export const weightMatmulShaders: Readonly<Record<WeightType, WeightMatmulShaders>> = {
  f32: shadersFor('f32'),
  f16: shadersFor('f16'),
  q8: shadersFor('q8'),
  q4: shadersFor('q4'),
};

/** Columns of the register tile of one invocation, and its rows in the shader for any sizes. */
const TILE = 8;
/** Invocations of a workgroup of the shader for any sizes. */
const INVOCATIONS = 32;
/** Rows of a tile and invocations of a workgroup of the shaders that read vectors of four. */
const VECTOR_TILE_ROWS = 16;
const VECTOR_INVOCATIONS = 16;

interface Product {
  readonly name: string;
  readonly type: WeightType;
  /** Null where only the shader for any sizes serves. */
  readonly vectors: ShaderSource | null;
  readonly input: Tensor;
  readonly part: WeightPart;
  readonly output: Tensor;
  readonly params: {
    readonly transposed: number;
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

function product(
  { name, type, vectors, input, part, output, params }: Product,
  { alpha = 1, accumulate = false }: MatmulOptions,
): KernelCall {
  const { rows, columns, inner } = params;
  const shader = vectors ?? weightMatmulShaders[type].any;
  const tiles = Math.ceil(rows / (vectors ? VECTOR_TILE_ROWS : TILE)) * Math.ceil(columns / TILE);
  return {
    name,
    shader,
    entryPoint: 'main',
    ...weightBindings(input, part, output),
    uniforms: layOutParams(shader, { ...params, accumulate: accumulate ? 1 : 0, alpha }),
    workgroups: foldWorkgroups(Math.ceil(tiles / (vectors ? VECTOR_INVOCATIONS : INVOCATIONS))),
    flops: 2 * rows * columns * inner,
    bytes: part.data.bytes + (part.scales?.bytes ?? 0) + 4 * rows * (columns + inner),
  };
}

/** y [N, out] (+)= α · x [N, in] · Wᵀ. Each part of W writes its columns of y. Throws GpuError 'shape'. */
export function weightNT(
  { x, w, y }: { x: Tensor; w: WeightMatrix; y: Tensor },
  options: MatmulOptions = {},
): KernelCall[] {
  const [rows] = matrixShape('weightNT', 'x', x);
  expectShape('weightNT', 'x', x, [rows, w.columns]);
  expectShape('weightNT', 'y', y, [rows, w.rows]);
  const { nt, ntOdd } = weightMatmulShaders[w.type];
  const vectors = w.columns % 4 !== 0 ? null : w.rows % 4 === 0 ? nt : ntOdd;
  return w.parts.map((part) => {
    const params = {
      transposed: 1,
      rows,
      columns: part.rows,
      inner: w.columns,
      aStride: w.columns,
      aColumn: 0,
      bStride: rowStride(w.type, w.columns),
      cStride: w.rows,
      cColumn: part.firstRow,
    };
    return product({ name: 'matmul-nt', type: w.type, vectors, input: x, part, output: y, params }, options);
  });
}

/** dx [N, in] (+)= α · dy [N, out] · W, summed over the parts of W in order. Throws GpuError 'shape'. */
export function weightNN(
  { dy, w, dx }: { dy: Tensor; w: WeightMatrix; dx: Tensor },
  options: MatmulOptions = {},
): KernelCall[] {
  const [rows] = matrixShape('weightNN', 'dy', dy);
  expectShape('weightNN', 'dy', dy, [rows, w.rows]);
  expectShape('weightNN', 'dx', dx, [rows, w.columns]);
  const vectors = w.columns % 4 === 0 && w.rows % 4 === 0 ? weightMatmulShaders[w.type].nn : null;
  return w.parts.map((part) => {
    const params = {
      transposed: 0,
      rows,
      columns: w.columns,
      inner: part.rows,
      aStride: w.rows,
      aColumn: part.firstRow,
      bStride: rowStride(w.type, w.columns),
      cStride: w.columns,
      cColumn: 0,
    };
    const accumulate = options.accumulate === true || part.firstRow > 0;
    return product(
      { name: 'matmul-nn', type: w.type, vectors, input: dy, part, output: dx, params },
      { ...options, accumulate },
    );
  });
}
