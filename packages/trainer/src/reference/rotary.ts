// Rotary position embedding (Su et al. 2021), rotate-half: element i of a head turns with element i + headSize/2. Scaling as
// in transformers' modeling_rope_utils.py ("linear", "llama3").
import type { ModelConfig, RopeScaling } from '@weft/formats';
import { at } from './numbers.ts';

/** Radians a position of each pair of a head: θ^(−2i/headSize), stretched by the scaling. [headSize/2] */
export function rotaryFrequencies({ headSize, ropeTheta, ropeScaling }: ModelConfig): Float64Array {
  return Float64Array.from({ length: headSize / 2 }, (_, i) =>
    stretched(ropeTheta ** ((-2 * i) / headSize), ropeScaling),
  );
}

function stretched(frequency: number, scaling: RopeScaling | null): number {
  if (scaling === null) return frequency;
  if (scaling.kind === 'linear') return frequency / scaling.factor;
  // Turns within the context the model was first trained on: many are kept, few are stretched, between them is a blend.
  const turns = (scaling.originalMaxPositions * frequency) / (2 * Math.PI);
  const { lowFrequencyFactor: low, highFrequencyFactor: high } = scaling;
  const kept = Math.min(1, Math.max(0, (turns - low) / (high - low)));
  return kept * frequency + ((1 - kept) * frequency) / scaling.factor;
}

/** x [T, heads·headSize] with row t turned to position t; direction −1 turns back, which is the gradient. */
export function rotate(x: Float64Array, frequencies: Float64Array, tokens: number, direction: 1 | -1): Float64Array {
  const half = frequencies.length;
  const width = x.length / tokens;
  const out = new Float64Array(x.length);
  for (let t = 0; t < tokens; t += 1) {
    for (let head = t * width; head < (t + 1) * width; head += 2 * half) {
      for (let i = 0; i < half; i += 1) {
        const angle = direction * t * at(frequencies, i);
        const [low, high] = [at(x, head + i), at(x, head + half + i)];
        out[head + i] = low * Math.cos(angle) - high * Math.sin(angle);
        out[head + half + i] = high * Math.cos(angle) + low * Math.sin(angle);
      }
    }
  }
  return out;
}
