// Kernels that sum over a row before they write it, and how many invocations share one.
import { foldWorkgroups, type KernelCall, type KernelVariant } from '../../runtime/call.ts';
import type { ShaderSource } from '../../runtime/shader.ts';

/**
 * Invocations that share a row. `many`, who meet at a barrier, fill a GPU with few rows and read side by side. `one` needs
 * no barrier, for which software adapters pay more than for the row itself. Both are right everywhere.
 */
export type Lanes = 'one' | 'many';

export interface RowOptions {
  /** For tests; when left out, the plan takes what suits its device. */
  readonly lanes?: Lanes;
}

/** Invocations of a workgroup where many share a row. */
const INVOCATIONS = 64;

/** How many share a row of so many vectors; as few as keep a GPU busy, since each of them adds up what all have found. */
const manyLanes = (vectors: number): number => (vectors <= 128 ? 8 : vectors <= 512 ? 16 : 32);

/** How many of one and of the other there are in a shader's uniforms and dispatch. */
export interface RowDispatch {
  /** Invocations that share a row where many do. */
  readonly lanes: number;
  readonly workgroups: Readonly<Record<Lanes, [number, number, number]>>;
}

/** Invocations of a workgroup where each has rows of its own: few, so that few rows still make several workgroups. */
const ALONE = 8;

/** Of a shader whose invocations share a row of so many vectors, or take `each` rows alone. */
export function rowDispatch(
  rows: number,
  {
    vectors,
    each,
    lanes = manyLanes(vectors),
    invocations = INVOCATIONS,
  }: {
    readonly vectors: number;
    readonly each: number;
    readonly lanes?: number;
    readonly invocations?: number;
  },
): RowDispatch {
  return {
    lanes,
    workgroups: {
      many: foldWorkgroups(Math.ceil((rows * lanes) / invocations)),
      one: foldWorkgroups(Math.ceil(rows / (ALONE * each))),
    },
  };
}

/** The entry points of a row kernel as variants; `lanes` fixes one of them. */
export function rowVariants(
  shader: ShaderSource,
  { workgroups }: RowDispatch,
  entryPoint: (lanes: Lanes) => string,
  fixed: Lanes | undefined,
): Pick<KernelCall, 'shader' | 'entryPoint' | 'workgroups' | 'variants'> {
  const variant = (lanes: Lanes): KernelVariant => ({
    variant: lanes,
    suits: lanes === 'one' ? 'software' : 'any',
    shader,
    entryPoint: entryPoint(lanes),
    workgroups: workgroups[lanes],
  });
  const lanes = fixed ?? 'many';
  return {
    ...{ shader, entryPoint: entryPoint(lanes), workgroups: workgroups[lanes] },
    ...(fixed === undefined ? { variants: [variant('many'), variant('one')] } : {}),
  };
}
