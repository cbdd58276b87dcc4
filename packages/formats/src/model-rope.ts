// The rotary embedding that config.json describes. It stands in one of two keys: rope_scaling, and since transformers 5
// rope_parameters. A kind of scaling the trainer does not compute is refused by its name.
import { z } from 'zod';
import { FormatError, unsupportedModel } from './errors.ts';

/** How the frequencies of the rotary embedding are stretched for longer contexts (transformers, modeling_rope_utils.py). */
export type RopeScaling =
  | { readonly kind: 'linear'; readonly factor: number }
  | {
      readonly kind: 'llama3';
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalMaxPositions: number;
    };

export const DEFAULT_ROPE_THETA = 10_000;

const positive = z.number().positive();

const ropeSchema = z
  .looseObject({
    rope_type: z.string().nullish(),
    type: z.string().nullish(),
    rope_theta: positive.nullish(),
    partial_rotary_factor: positive.nullish(),
  })
  .nullish();

/** The keys of config.json that are about the rotary embedding. */
export const ropeFields = {
  rope_theta: positive.nullish(),
  rope_scaling: ropeSchema,
  rope_parameters: ropeSchema,
  partial_rotary_factor: positive.nullish(),
  original_max_position_embeddings: z.int().positive().nullish(),
};
type RopeFields = z.output<z.ZodObject<typeof ropeFields>>;
type Rope = NonNullable<RopeFields['rope_scaling']>;

const linearSchema = z.object({ factor: positive });
const llama3Schema = z
  .object({
    factor: positive,
    low_freq_factor: positive,
    high_freq_factor: positive,
    original_max_position_embeddings: z.int().positive(),
  })
  .refine((rope) => rope.high_freq_factor > rope.low_freq_factor, {
    message: 'must be more than low_freq_factor',
    path: ['high_freq_factor'],
  });

function checked<T>(schema: z.ZodType<T>, rope: object, key: string): T {
  const parsed = schema.safeParse(rope);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new FormatError('model-config', `config.json: ${[key, ...(issue?.path ?? [])].join('.')}: ${issue?.message}.`, {
    cause: parsed.error,
  });
}

function scalingOf(rope: Rope, key: string, originalMaxPositions: number | undefined): RopeScaling | null {
  const kind = rope.rope_type ?? rope.type ?? 'default';
  if (kind === 'default') return null;
  if (kind === 'linear') return { kind, factor: checked(linearSchema, rope, key).factor };
  if (kind !== 'llama3') throw unsupportedModel(`Scaled rotary embedding (${key} of type ${kind})`);
  const whole = { ...(originalMaxPositions && { original_max_position_embeddings: originalMaxPositions }), ...rope };
  const llama3 = checked(llama3Schema, whole, key);
  return {
    kind,
    factor: llama3.factor,
    lowFrequencyFactor: llama3.low_freq_factor,
    highFrequencyFactor: llama3.high_freq_factor,
    originalMaxPositions: llama3.original_max_position_embeddings,
  };
}

/** Throws FormatError 'unsupported-architecture', or 'model-config' when values are missing or the two keys disagree. */
export function parseRope(config: RopeFields): { theta: number; scaling: RopeScaling | null } {
  if ((config.partial_rotary_factor ?? 1) !== 1) throw unsupportedModel('Partial rotary embedding');
  const scalings: (RopeScaling | null)[] = [];
  for (const key of ['rope_scaling', 'rope_parameters'] as const) {
    const rope = config[key];
    if (!rope || Object.keys(rope).length === 0) continue;
    if ((rope.partial_rotary_factor ?? 1) !== 1) throw unsupportedModel(`Partial rotary embedding (${key})`);
    if (Object.keys(rope).some((name) => name.endsWith('_attention')))
      throw unsupportedModel(`A rotary embedding for each kind of layer (${key})`);
    scalings.push(scalingOf(rope, key, config.original_max_position_embeddings ?? undefined));
  }
  const [scaling = null, other = scaling] = scalings;
  if (JSON.stringify(other) !== JSON.stringify(scaling))
    throw new FormatError(
      'model-config',
      'config.json: rope_scaling and rope_parameters disagree; remove the wrong one.',
    );
  const theta = config.rope_scaling?.rope_theta ?? config.rope_parameters?.rope_theta ?? config.rope_theta;
  return { theta: theta ?? DEFAULT_ROPE_THETA, scaling };
}
