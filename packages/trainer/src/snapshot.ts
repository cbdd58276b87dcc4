// A training in progress as a file: factors, the optimiser's moments and counts, in one safetensors blob with PEFT names. Together
// with the rows and the settings it continues as if training had never stopped.
import {
  FormatError,
  type LoraAdapter,
  type LoraFactors,
  peftTensorName,
  readSafetensors,
  toFloat32,
  writeSafetensors,
} from '@weft/formats';
import { z } from 'zod';
import { TrainerError } from './errors.ts';
import { MOMENTS, type Moment } from './optim/optimiser.ts';
import type { OptimiserState } from './plan/step.ts';

/** What a training has done so far. */
export interface TrainTally {
  readonly steps: number;
  readonly losses: readonly number[];
  readonly targetTokens: number;
  readonly tokens: number;
  readonly examples: number;
  readonly busyMs: number;
}

export interface TrainSnapshot {
  readonly adapter: LoraAdapter;
  readonly optimiser: OptimiserState;
  readonly tally: TrainTally;
}

const count = z.number().nonnegative();
const metadataSchema = z.object({
  baseModel: z.string(),
  rslora: z.boolean(),
  /** Those the optimiser keeps. */
  moments: z.array(z.enum(MOMENTS)),
  tally: z.object({
    steps: z.int().nonnegative(),
    losses: z.array(z.number()),
    targetTokens: count,
    tokens: count,
    examples: count,
    busyMs: count,
  }),
  matrices: z.array(z.object({ module: z.string(), alpha: z.number().positive(), scale: z.number().positive() })),
});

type Kind = 'params' | Moment;
const tensorName = (kind: Kind, module: string, factor: 'A' | 'B'): string =>
  `${kind === 'params' ? '' : `optimiser.${kind}.`}${peftTensorName(module, factor)}`;

/** `metadata`: what else the file's header is to say, such as the settings it was trained with. */
export function writeSnapshot(
  { adapter, optimiser, tally }: TrainSnapshot,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  const parts: [Kind, ReadonlyMap<string, LoraFactors>][] = [['params', adapter.matrices], ...optimiser];
  const tensors = parts.flatMap(([kind, part]) =>
    [...part.values()].flatMap(({ module, rank, in: columns, out, a, b }) => [
      { name: tensorName(kind, module, 'A'), dtype: 'F32' as const, shape: [rank, columns], data: a },
      { name: tensorName(kind, module, 'B'), dtype: 'F32' as const, shape: [out, rank], data: b },
    ]),
  );
  const matrices = [...adapter.matrices.values()].map(({ module, alpha, scale }) => ({ module, alpha, scale }));
  const document = {
    baseModel: adapter.baseModel,
    rslora: adapter.rslora,
    moments: [...optimiser.keys()],
    tally,
    matrices,
  };
  return writeSafetensors(tensors, { ...metadata, format: 'pt', weft_snapshot: JSON.stringify(document) });
}

/** Throws TrainerError 'bad-snapshot', or a FormatError for a damaged file. */
export function readSnapshot(bytes: Uint8Array, file = 'the snapshot'): TrainSnapshot {
  const { tensors, metadata } = readSafetensors(bytes, file);
  const fail = (what: string, cause?: unknown): never => {
    throw new TrainerError('bad-snapshot', `${file} ${what}. Begin again without it.`, { cause });
  };
  const text = metadata.weft_snapshot ?? fail('is no snapshot of a training');
  let document: z.output<typeof metadataSchema>;
  try {
    document = metadataSchema.parse(JSON.parse(text));
  } catch (cause) {
    return fail('is a snapshot whose metadata cannot be read', cause);
  }
  const read = (kind: Kind): Map<string, LoraFactors> =>
    new Map(
      document.matrices.map(({ module, alpha, scale }) => {
        const a = tensors.get(tensorName(kind, module, 'A')) ?? fail(`lacks ${kind} of ${module}`);
        const b = tensors.get(tensorName(kind, module, 'B')) ?? fail(`lacks ${kind} of ${module}`);
        const [rank = 0, columns = 0] = a.shape;
        const [out = 0, rankB] = b.shape;
        if (rank !== rankB) fail(`holds factors of ${module} that do not belong together`);
        const [first, second] = [toFloat32(a, module), toFloat32(b, module)];
        if (!first.every(Number.isFinite) || !second.every(Number.isFinite))
          throw new FormatError('adapter-tensor', `${file}: ${module} holds NaN or infinity.`);
        return [module, { module, rank, in: columns, out, alpha, scale, a: first, b: second }];
      }),
    );
  const { baseModel, rslora, moments, tally } = document;
  const optimiser = new Map(moments.map((moment) => [moment, read(moment)]));
  return { adapter: { baseModel, rslora, matrices: read('params') }, optimiser, tally };
}
