// The shaders of attention for heads of one size. Those of `variants` compute the same, so that a device may take whichever
// is fastest on it.
import type { KernelVariant } from '../../runtime/call.ts';
import type { ShaderSource } from '../../runtime/shader.ts';
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

/** Invocations of a workgroup of split.wgsl. */
const SPLIT_INVOCATIONS = 64;

export interface AttentionVariant {
  readonly variant: 'tile' | 'quad';
  readonly suits: NonNullable<KernelVariant['suits']>;
  /** Has the entry points `forward`, `backward_query` and `backward_key`. */
  readonly shader: ShaderSource;
  /** Rows of one head that a workgroup computes. */
  readonly span: number;
}

export interface AttentionShaders {
  /** Parts of a head. */
  readonly parts: number;
  /** For as many queries as a training step has, or any number. The first one needs no optional feature. */
  readonly variants: readonly [AttentionVariant, ...AttentionVariant[]];
  /** `forward` for few queries over many keys: a workgroup for every head of each. */
  readonly split: ShaderSource;
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
  const tile: AttentionVariant = {
    variant: 'tile',
    suits: 'any',
    shader: source('tile', tileShaderCode(partCode, parts)),
    span: TILE,
  };
  const shape = quadShape(parts);
  const quad: AttentionVariant[] = shape
    ? [
        {
          variant: 'quad',
          suits: 'software',
          shader: { ...source('quad', quadShaderCode(partCode, parts, shape)), enables: ['subgroups'] },
          span: quadSpan(shape),
        },
      ]
    : [];
  const columns = `const COLUMNS = ${Math.ceil(parts / SPLIT_INVOCATIONS)}u;\n`;
  const shaders: AttentionShaders = {
    parts,
    variants: [tile, ...quad],
    split: source('split', partCode + columns + paramsCode + splitCode),
    rowStats: source('row-stats', partCode + paramsCode + rowStatsCode),
  };
  known.set(headSize, shaders);
  return shaders;
}

/** All shaders for heads of this size, whatever a device may take of them: what tests compile and search. */
export function attentionShaders(headSize: number): ShaderSource[] {
  const { variants, split, rowStats } = shadersFor(headSize);
  return [...variants.map(({ shader }) => shader), split, rowStats];
}
