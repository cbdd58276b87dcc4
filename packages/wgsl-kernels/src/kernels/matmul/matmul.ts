// Matrix products of float32 tensors: NT for x·Aᵀ, NN for dy·B, TN for gradients summed over tokens. Products with a frozen
// weight of any type are in weight-matmul.ts; NT and NN take their f32 shaders.
import { foldWorkgroups, type KernelCall, type KernelVariant } from '../../runtime/call.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import { weightOf } from '../../weights/weight-matrix.ts';
import tallCode from './tall.wgsl?raw';
import tallParamsCode from './tall-params.wgsl?raw';
import { MOST_SHORT_VECTORS, type ShortSide, TALL_QUAD_WORKGROUP, tallQuadCode } from './tall-quad.ts';
import tall4Code from './tall4.wgsl?raw';
import { type MatmulOptions, weightNN, weightNT } from './weight-matmul.ts';

export const tallMatmulShader: ShaderSource = { name: 'matmul-tall', code: tallParamsCode + tallCode };
/** For M and N that are multiples of four; {@link tallMatmulShader} serves all others. */
export const tallVectorMatmulShader: ShaderSource = { name: 'matmul-tall4', code: tallParamsCode + tall4Code };

const tallQuadShader = (short: ShortSide, vectors: number): ShaderSource => ({
  name: `matmul-tall-quad ${short} ${4 * vectors}`,
  code: tallQuadCode(short, vectors),
  enables: ['subgroups'],
});
/** By the vectors of the short side, from one: for M or N of 4, 8, 12 or 16, the other being a multiple of four. */
export const tallQuadMatmulShaders: Readonly<Record<ShortSide, readonly ShaderSource[]>> = {
  rows: Array.from({ length: MOST_SHORT_VECTORS }, (_, i) => tallQuadShader('rows', i + 1)),
  columns: Array.from({ length: MOST_SHORT_VECTORS }, (_, i) => tallQuadShader('columns', i + 1)),
};

/** Rows and columns of a tile of c, and tiles of a workgroup. */
const TILE = 8;
const TILES = 4;

export interface MatmulTensors {
  readonly a: Tensor;
  readonly b: Tensor;
  readonly c: Tensor;
}

/** c [M, N] (+)= α · a [M, K] · bᵀ, b [N, K]. Throws GpuError 'shape'. */
export function matmulNT({ a, b, c }: MatmulTensors, options: MatmulOptions = {}): KernelCall[] {
  const [rows, inner] = matrixShape('matmulNT', 'a', a);
  const [columns] = matrixShape('matmulNT', 'b', b);
  expectShape('matmulNT', 'b', b, [columns, inner]);
  expectShape('matmulNT', 'c', c, [rows, columns]);
  return weightNT({ x: a, w: weightOf(b), y: c }, options);
}

/** c [M, N] (+)= α · a [M, K] · b [K, N]. Throws GpuError 'shape'. */
export function matmulNN({ a, b, c }: MatmulTensors, options: MatmulOptions = {}): KernelCall[] {
  const [rows, inner] = matrixShape('matmulNN', 'a', a);
  const [, columns] = matrixShape('matmulNN', 'b', b);
  expectShape('matmulNN', 'b', b, [inner, columns]);
  expectShape('matmulNN', 'c', c, [rows, columns]);
  return weightNN({ dy: a, w: weightOf(b), dx: c }, options);
}

/** c [M, N] (+)= α · aᵀ · b, a [K, M], b [K, N]; meant for K much longer than M and N. Throws GpuError 'shape'. */
export function matmulTN(
  { a, b, c }: MatmulTensors,
  { alpha = 1, accumulate = false }: MatmulOptions = {},
): KernelCall[] {
  const [inner, rows] = matrixShape('matmulTN', 'a', a);
  const [, columns] = matrixShape('matmulTN', 'b', b);
  expectShape('matmulTN', 'b', b, [inner, columns]);
  expectShape('matmulTN', 'c', c, [rows, columns]);
  const tiles = Math.ceil(rows / TILE) * Math.ceil(columns / TILE);
  const isVectors = rows % 4 === 0 && columns % 4 === 0;
  const tiled: KernelVariant = {
    variant: 'tiles',
    suits: 'any',
    shader: isVectors ? tallVectorMatmulShader : tallMatmulShader,
    entryPoint: 'main',
    workgroups: foldWorkgroups(Math.ceil(tiles / TILES)),
  };
  const short: ShortSide = rows <= columns ? 'rows' : 'columns';
  const shared = isVectors ? tallQuadMatmulShaders[short][Math.min(rows, columns) / 4 - 1] : undefined;
  const quad: KernelVariant[] = shared
    ? [
        {
          variant: 'quad',
          suits: 'software',
          shader: shared,
          entryPoint: 'main',
          workgroups: foldWorkgroups(Math.ceil(Math.max(rows, columns) / 4 / TALL_QUAD_WORKGROUP)),
        },
      ]
    : [];
  const { shader, entryPoint, workgroups } = tiled;
  return [
    {
      name: 'matmul-tn',
      shader,
      entryPoint,
      workgroups,
      ...(shared ? { variants: [tiled, ...quad], tuningClass: `matmul, tall, ${short}` } : {}),
      bindings: [a, b, c],
      uniforms: layOutParams(shader, { rows, columns, inner, accumulate: accumulate ? 1 : 0, alpha }),
      flops: 2 * rows * columns * inner,
      bytes: a.bytes + b.bytes + c.bytes,
    },
  ];
}
