// A checkpoint with its adapter merged into the weights: W₀ + s·B·A (LoRA, Hu et al. 2022, §4.1). It comes as the pieces of a
// safetensors file, so that a model larger than memory can be written; who writes them is someone else.
import type { Checkpoint } from './checkpoint.ts';
import { FormatError } from './errors.ts';
import { loraTargets, modelTensors } from './model-tensors.ts';
import type { LoraAdapter, LoraFactors } from './peft.ts';
import { type Dtype, elementsOf } from './safetensors.ts';
import { encodeElements, type FloatDtype, planSafetensors, type SafetensorsPlan } from './safetensors-write.ts';

export interface MergeAdapterOptions {
  /** Element type of the merged weights; each tensor's own when left out. */
  readonly dtype?: 'F32' | 'F16' | 'BF16';
  /** Elements of one piece: at least one row is taken. 2²⁰ when left out. */
  readonly pieceElements?: number;
}

export interface MergedCheckpoint {
  /** The file's header and size. */
  readonly plan: SafetensorsPlan;
  /**
   * The whole file in order, its header first. Throws what Checkpoint.read throws, and FormatError 'safetensors-tensor' when a
   * merged weight is too large for the element type.
   */
  pieces(): AsyncGenerator<Uint8Array>;
}

/** Checkpoints have no other: openCheckpoint refuses them. */
const floatDtype = (dtype: Dtype): FloatDtype => (dtype === 'F16' || dtype === 'BF16' ? dtype : 'F32');

/** Throws FormatError 'adapter-tensor' naming the first matrix that is not one of the model's. */
function checkMatrices(checkpoint: Checkpoint, adapter: LoraAdapter): void {
  const targets = new Map(loraTargets(checkpoint.config).map((target) => [target.module, target]));
  for (const { module, in: columns, out } of adapter.matrices.values()) {
    const target = targets.get(module);
    if (!target)
      throw new FormatError('adapter-tensor', `The adapter changes ${module}, which the model does not have there.`);
    if (target.in !== columns || target.out !== out) {
      throw new FormatError(
        'adapter-tensor',
        `The adapter's ${module} is [${out}, ${columns}], the model's [${target.out}, ${target.in}]. The adapter belongs to another model.`,
      );
    }
  }
}

/** Adds s·B·A to `rows` rows of W from row `first` on, in float64. `w` [rows, in] is those rows. */
function mergedRows(w: Float32Array, first: number, { in: columns, rank, scale, a, b }: LoraFactors): Float64Array {
  const merged = new Float64Array(w.length);
  const delta = new Float64Array(columns);
  for (let start = 0; start < w.length; start += columns) {
    const row = first + start / columns;
    delta.fill(0);
    for (let r = 0; r < rank; r += 1) {
      const factor = b[row * rank + r] ?? 0;
      for (let i = 0; i < columns; i += 1) delta[i] = (delta[i] ?? 0) + factor * (a[r * columns + i] ?? 0);
    }
    for (let i = 0; i < columns; i += 1) merged[start + i] = (w[start + i] ?? 0) + scale * (delta[i] ?? 0);
  }
  return merged;
}

/**
 * The merged checkpoint as one safetensors file. Sums run in float64 and are rounded once, to the element type of the file. A
 * tied head stays tied: it is not written. Throws FormatError 'adapter-tensor' when the adapter belongs to another model.
 */
export function mergeAdapter(
  checkpoint: Checkpoint,
  adapter: LoraAdapter,
  options: MergeAdapterOptions = {},
): MergedCheckpoint {
  checkMatrices(checkpoint, adapter);
  const { pieceElements = 2 ** 20 } = options;
  const dtypeOf = (name: string): FloatDtype => options.dtype ?? floatDtype(checkpoint.dtypeOf(name));
  const tensors = modelTensors(checkpoint.config).map(({ name, shape }) => ({ name, shape, dtype: dtypeOf(name) }));
  const plan = planSafetensors(tensors, { format: 'pt' });
  const factorsOf = new Map([...adapter.matrices.values()].map((factors) => [`${factors.module}.weight`, factors]));

  async function* pieces(): AsyncGenerator<Uint8Array> {
    yield plan.header;
    for (const { name, shape } of plan.entries) {
      const dtype = dtypeOf(name);
      const factors = factorsOf.get(name);
      const total = elementsOf(shape);
      // A piece of an adapted matrix is whole rows.
      const width = factors ? factors.in : 1;
      const step = Math.max(1, Math.floor(pieceElements / width)) * width;
      for (let first = 0; first < total; first += step) {
        const w = await checkpoint.read(name, first, Math.min(step, total - first));
        yield encodeElements(dtype, factors ? mergedRows(w, first / width, factors) : w, name);
      }
    }
  }
  return { plan, pieces };
}
