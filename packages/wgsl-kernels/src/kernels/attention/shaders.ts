// The shaders of attention for heads of one size. Variants compute the same, so that a device may take whichever
// is fastest on it.
import type { KernelVariant } from '../../runtime/call.ts';
import type { ShaderSource } from '../../runtime/shader.ts';
import eachCode from './each.wgsl?raw';
import paramsCode from './params.wgsl?raw';
import { quadShaderCode, quadShape, quadSpan } from './quad.ts';
import rowStatsCode from './row-stats.wgsl?raw';
import splitCode from './split.wgsl?raw';
import { TILE, tileShaderCode } from './tile.ts';

/** What a head is cut into: the longest vectors that divide it. */
const PARTS = [
  { width: 4, type: 'vec4f', sum: '(a.x + a.y) + (a.z + a.w)' },
  { width: 2, type: 'vec2f', sum: 'a.x + a.y' },
  { width: 1, type: 'f32', sum: 'a' },
] as const;

/** Invocations of a workgroup of split.wgsl, and of each.wgsl. */
const SPLIT_INVOCATIONS = 64;
const EACH_INVOCATIONS = 8;

/** `tile` and `quad` are for many rows, `split` and `each` for few queries, and forward only. */
export type AttentionVariantName = 'tile' | 'quad' | 'split' | 'each';

export interface AttentionVariant {
  readonly variant: AttentionVariantName;
  readonly suits: NonNullable<KernelVariant['suits']>;
  readonly shader: ShaderSource;
  /** Workgroups for so many rows of so many heads. */
  readonly workgroups: (rows: number, heads: number) => number;
}

export interface AttentionShaders {
  /** Parts of a head. */
  readonly parts: number;
  /** Have the entry points `forward`, `backward_query` and `backward_key`. The first needs no optional feature. */
  readonly many: readonly AttentionVariant[];
  /** For few queries over many keys. Have the entry point `forward` only, and need no optional feature. */
  readonly few: readonly AttentionVariant[];
  /** `row_stats`. */
  readonly rowStats: ShaderSource;
}

const known = new Map<number, AttentionShaders>();

/** The shaders for heads of this size; one text each a size. */
export function shadersFor(headSize: number): AttentionShaders {
  const made = known.get(headSize);
  if (made) return made;
  const { width, type, sum } = PARTS.find((part) => headSize % part.width === 0) ?? PARTS[2];
  const parts = headSize / width;
  const partCode = `alias Part = ${type};\nfn part_sum(a: Part) -> f32 { return ${sum}; }\n`;
  const source = (name: string, code: string): ShaderSource => ({ name: `attention-${name} ${headSize}`, code });
  const shape = quadShape(parts);
  const quad: AttentionVariant[] = shape
    ? [
        {
          variant: 'quad',
          suits: 'software',
          shader: { ...source('quad', quadShaderCode(partCode, parts, shape)), enables: ['subgroups'] },
          workgroups: (rows, heads) => Math.ceil(rows / quadSpan(shape)) * heads,
        },
      ]
    : [];
  const columns = `const COLUMNS = ${Math.ceil(parts / SPLIT_INVOCATIONS)}u;\n`;
  const shaders: AttentionShaders = {
    parts,
    many: [
      {
        variant: 'tile',
        suits: 'any',
        shader: source('tile', tileShaderCode(partCode, parts)),
        workgroups: (rows, heads) => Math.ceil(rows / TILE) * heads,
      },
      ...quad,
    ],
    few: [
      {
        variant: 'split',
        suits: 'any',
        shader: source('split', partCode + columns + paramsCode + splitCode),
        workgroups: (rows, heads) => rows * heads,
      },
      {
        variant: 'each',
        suits: 'software',
        shader: source('each', `${partCode}const PARTS = ${parts}u;\n${paramsCode}${eachCode}`),
        workgroups: (rows, heads) => Math.ceil((rows * heads) / EACH_INVOCATIONS),
      },
    ],
    rowStats: source('row-stats', partCode + paramsCode + rowStatsCode),
  };
  known.set(headSize, shaders);
  return shaders;
}

/** All shaders for heads of this size, whatever a device may take of them: what tests compile and search. */
export function attentionShaders(headSize: number): ShaderSource[] {
  const { many, few, rowStats } = shadersFor(headSize);
  return [...many, ...few].map(({ shader }) => shader).concat(rowStats);
}
