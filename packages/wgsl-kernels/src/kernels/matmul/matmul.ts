// Matrix products: NT for x·Wᵀ, NN for dy·W, TN for gradients summed over tokens.
import { foldWorkgroups, type KernelCall } from '../../runtime/plan.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import matmulCode from './matmul.wgsl?raw';
import nnCode from './nn.wgsl?raw';
import ntCode from './nt.wgsl?raw';
import storeCode from './store.wgsl?raw';
import storeOddCode from './store-odd.wgsl?raw';
import tallCode from './tall.wgsl?raw';
import tall4Code from './tall4.wgsl?raw';

export const matmulShader: ShaderSource = { name: 'matmul', code: matmulCode };
/** For rows of a and b that are multiples of four long; {@link matmulShader} serves all others. */
export const ntMatmulShader: ShaderSource = { name: 'matmul-nt', code: ntCode + storeCode };
export const ntOddMatmulShader: ShaderSource = { name: 'matmul-nt-odd', code: ntCode + storeOddCode };
export const nnMatmulShader: ShaderSource = { name: 'matmul-nn', code: nnCode + storeCode };
export const tallMatmulShader: ShaderSource = { name: 'matmul-tall', code: tallCode };
export const tallVectorMatmulShader: ShaderSource = { name: 'matmul-tall4', code: tall4Code };

/** Columns of the register tile of one invocation, and its rows in the shader for any sizes. */
const TILE = 8;
/** Invocations of a workgroup of the shader for any sizes. */
const INVOCATIONS = 32;
/** Rows of a tile and invocations of a workgroup of the shaders that read vectors of four. */
const VECTOR_TILE_ROWS = 16;
const VECTOR_INVOCATIONS = 16;
/** Tiles of a workgroup of the tall shaders. */
const TALL_TILES = 4;

export interface MatmulTensors {
  readonly a: Tensor;
  readonly b: Tensor;
  readonly c: Tensor;
}

export interface MatmulOptions {
  /** Factor of the product; 1 when left out. */
  readonly alpha?: number;
  /** Add to c instead of replacing it. */
  readonly accumulate?: boolean;
}

interface Sizes {
  readonly rows: number;
  readonly columns: number;
  readonly inner: number;
}

function describe(
  name: string,
  shader: ShaderSource,
  { a, b, c }: MatmulTensors,
  { rows, columns, inner }: Sizes,
): Omit<KernelCall, 'uniforms' | 'workgroups'> {
  return {
    name,
    shader,
    entryPoint: 'main',
    bindings: [a, b, c],
    flops: 2 * rows * columns * inner,
    bytes: a.bytes + b.bytes + c.bytes,
  };
}

interface Strides {
  readonly aRow: number;
  readonly aInner: number;
  readonly bInner: number;
  readonly bColumn: number;
}

/** Takes the given shader, which reads vectors of four, or the one for any sizes where there is none. */
function product(
  name: string,
  tensors: MatmulTensors,
  sizes: Sizes,
  options: MatmulOptions,
  { vectors, strides }: { vectors: ShaderSource | null; strides: Strides },
): KernelCall[] {
  const tiles = Math.ceil(sizes.rows / (vectors ? VECTOR_TILE_ROWS : TILE)) * Math.ceil(sizes.columns / TILE);
  const epilogue = { accumulate: options.accumulate ? 1 : 0, alpha: options.alpha ?? 1 };
  const shader = vectors ?? matmulShader;
  const uniforms = layOutParams(shader, vectors ? { ...sizes, ...epilogue } : { ...sizes, ...strides, ...epilogue });
  const workgroups = foldWorkgroups(Math.ceil(tiles / (vectors ? VECTOR_INVOCATIONS : INVOCATIONS)));
  return [{ ...describe(name, shader, tensors, sizes), uniforms, workgroups }];
}

/** c [M, N] (+)= α · a [M, K] · bᵀ, b [N, K]. Throws GpuError 'shape'. */
export function matmulNT(tensors: MatmulTensors, options: MatmulOptions = {}): KernelCall[] {
  const [rows, inner] = matrixShape('matmulNT', 'a', tensors.a);
  const [columns] = matrixShape('matmulNT', 'b', tensors.b);
  expectShape('matmulNT', 'b', tensors.b, [columns, inner]);
  expectShape('matmulNT', 'c', tensors.c, [rows, columns]);
  const strides = { aRow: inner, aInner: 1, bInner: 1, bColumn: inner };
  return product('matmul-nt', tensors, { rows, columns, inner }, options, {
    vectors: inner % 4 !== 0 ? null : columns % 4 === 0 ? ntMatmulShader : ntOddMatmulShader,
    strides,
  });
}

/** c [M, N] (+)= α · a [M, K] · b [K, N]. Throws GpuError 'shape'. */
export function matmulNN(tensors: MatmulTensors, options: MatmulOptions = {}): KernelCall[] {
  const [rows, inner] = matrixShape('matmulNN', 'a', tensors.a);
  const [, columns] = matrixShape('matmulNN', 'b', tensors.b);
  expectShape('matmulNN', 'b', tensors.b, [inner, columns]);
  expectShape('matmulNN', 'c', tensors.c, [rows, columns]);
  const strides = { aRow: inner, aInner: 1, bInner: columns, bColumn: 1 };
  return product('matmul-nn', tensors, { rows, columns, inner }, options, {
    vectors: inner % 4 === 0 && columns % 4 === 0 ? nnMatmulShader : null,
    strides,
  });
}

/** c [M, N] (+)= α · aᵀ · b, a [K, M], b [K, N]; meant for K much longer than M and N. Throws GpuError 'shape'. */
export function matmulTN(tensors: MatmulTensors, options: MatmulOptions = {}): KernelCall[] {
  const [inner, rows] = matrixShape('matmulTN', 'a', tensors.a);
  const [, columns] = matrixShape('matmulTN', 'b', tensors.b);
  expectShape('matmulTN', 'b', tensors.b, [inner, columns]);
  expectShape('matmulTN', 'c', tensors.c, [rows, columns]);
  const sizes = { rows, columns, inner };
  const tiles = Math.ceil(rows / TILE) * Math.ceil(columns / TILE);
  const shader = rows % 4 === 0 && columns % 4 === 0 ? tallVectorMatmulShader : tallMatmulShader;
  const epilogue = { accumulate: options.accumulate ? 1 : 0, alpha: options.alpha ?? 1 };
  const uniforms = layOutParams(shader, { ...sizes, ...epilogue });
  return [
    {
      ...describe('matmul-tn', shader, tensors, sizes),
      uniforms,
      workgroups: foldWorkgroups(Math.ceil(tiles / TALL_TILES)),
    },
  ];
}
