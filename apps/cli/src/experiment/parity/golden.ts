// What rounds.py left of the experiment, and how far another run of it is from that: losses by step, merged updates by the
// Frobenius norm of the difference. Most matrices are kept as sketches, so that the files stay small.
import { readFile } from 'node:fs/promises';
import { readSafetensors, toFloat64 } from '@weft/formats';
import { z } from 'zod';
import { inRepository } from './definition.ts';
import type { PlayedRound } from './play.ts';

const FOLDER = inRepository('packages/flexlora/reference/fixtures');
export const INPUTS = `${FOLDER}/inputs.jsonl`;

/** Sums that a matrix is sketched by. */
const SKETCH = 128;

const clientSchema = z.object({
  name: z.string(),
  rank: z.int(),
  task: z.string(),
  targetTokens: z.int(),
  weight: z.number(),
  losses: z.array(z.number()),
  /** Before clipping. */
  gradientNorms: z.array(z.number()),
});
const fileSchema = z.object({ nearestSingularValues: z.number(), rounds: z.array(z.array(clientSchema)) });

interface GoldenMatrix {
  readonly sigma: Float64Array;
  readonly sketch: Float64Array;
  /** The update itself, [out, in]; of a few matrices. */
  readonly delta: Float64Array | null;
}

export interface GoldenRound {
  readonly clients: readonly z.output<typeof clientSchema>[];
  readonly matrices: ReadonlyMap<string, GoldenMatrix>;
}

export interface Golden {
  /** The smallest relative gap of two singular values that a client's rank cuts between. */
  readonly nearestSingularValues: number;
  readonly rounds: readonly GoldenRound[];
}

export async function readGolden(strategy: string): Promise<Golden> {
  const { nearestSingularValues, rounds } = fileSchema.parse(
    JSON.parse(await readFile(`${FOLDER}/${strategy}.json`, 'utf8')),
  );
  const { tensors } = readSafetensors(await readFile(`${FOLDER}/${strategy}.safetensors`), strategy);
  const read = (name: string): Float64Array => {
    const tensor = tensors.get(name);
    if (!tensor) throw new RangeError(`${strategy}.safetensors has no ${name}; make the golden values again.`);
    return toFloat64(tensor, name);
  };
  const matricesOf = (round: number) => {
    const [prefix, suffix] = [`${round}.`, '.sigma'];
    const names = [...tensors.keys()].filter((name) => name.startsWith(prefix) && name.endsWith(suffix));
    return new Map(
      names.map((name): [string, GoldenMatrix] => {
        const module = name.slice(prefix.length, -suffix.length);
        const whole = `${prefix}${module}.delta`;
        const delta = tensors.has(whole) ? read(whole) : null;
        return [module, { sigma: read(name), sketch: read(`${prefix}${module}.sketch`), delta }];
      }),
    );
  };
  return {
    nearestSingularValues,
    rounds: rounds.map((clients, i) => ({ clients, matrices: matricesOf(i + 1) })),
  };
}

/** Sketches made so far: the same update is compared with more than one golden. */
const made = new WeakMap<Float64Array, Float64Array>();

/** `sketch` of rounds.py: sums of all elements, each element with a sign of its own in each sum. */
function sketchOf(delta: Float64Array): Float64Array {
  const kept = made.get(delta);
  if (kept) return kept;
  const sums = new Float64Array(SKETCH);
  const words = SKETCH / 32;
  for (let i = 0; i < delta.length; i += 1) {
    const value = delta[i] as number;
    for (let w = 0; w < words; w += 1) {
      let h = Math.imul(i * words + w + 1, 0x9e3779b1);
      h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
      h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
      h ^= h >>> 16;
      for (let bit = 0; bit < 32; bit += 1) {
        const k = 32 * w + bit;
        sums[k] = (sums[k] as number) + ((h >>> bit) & 1 ? -value : value);
      }
    }
  }
  made.set(delta, sums);
  return sums;
}

const norm = (values: Float64Array): number => Math.hypot(...values);

/** NaN when `ours` is shorter. */
const distance = (ours: ArrayLike<number>, theirs: Float64Array): number =>
  norm(theirs.map((value, i) => value - (ours[i] ?? Number.NaN)));

interface MatrixDifference {
  readonly module: string;
  /** ‖ΔW − golden‖ / ‖golden‖, estimated from the sketches. */
  readonly delta: number;
  /** The same without an estimate, of matrices that are kept whole. */
  readonly exact: number | null;
  /** ‖σ − golden‖ / ‖golden‖ of the spectrum that the server recorded. */
  readonly sigma: number;
}

/** Differences of one round. What is missing, or NaN, is a difference of NaN. */
export function differences(
  { losses, deltas, record }: PlayedRound,
  golden: GoldenRound,
): { readonly losses: readonly number[]; readonly matrices: readonly MatrixDifference[] } {
  const spectra = new Map(record.spectra.map(({ module, sigma }) => [module, sigma]));
  return {
    losses: golden.clients.flatMap((client) =>
      client.losses.map((loss, step) => Math.abs((losses.get(client.name)?.[step] ?? Number.NaN) / loss - 1)),
    ),
    matrices: Array.from(golden.matrices, ([module, { sigma, sketch, delta }]) => {
      const size = norm(sigma);
      const ours = deltas.get(module) ?? Float64Array.of(Number.NaN);
      const spectrum = spectra.get(module) ?? [];
      return {
        module,
        delta: distance(sketchOf(ours), sketch) / Math.sqrt(SKETCH) / size,
        exact: delta && distance(ours, delta) / size,
        // Singular values that are rounding noise are not recorded.
        sigma: distance([...spectrum, ...new Float64Array(sigma.length - spectrum.length)], sigma) / size,
      };
    }),
  };
}

/** The largest; NaN where one is, or where there is none. */
export const largest = (values: readonly number[]): number => (values.length > 0 ? Math.max(...values) : Number.NaN);
