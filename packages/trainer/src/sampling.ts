// Which token comes next, given the logits: temperature, top-k and top-p over a softmax in float64. Pure but for its own
// stream of random numbers, so that a seed repeats a text wherever the logits are equal.
import { TrainerError } from './errors.ts';
import { seededRandom } from './random.ts';

export interface SamplerOptions {
  /** Divides the logits; 0 takes the likeliest token, the lowest id where several are. */
  readonly temperature: number;
  /** Only the k likeliest tokens; at the edge the lower ids. Left out: all. */
  readonly topK?: number | undefined;
  /** Only the fewest likeliest tokens whose probabilities sum to p or more, one at least. Left out: all. */
  readonly topP?: number | undefined;
  readonly seed: string;
}

/** Takes logits [vocabSize], gives a token id. Throws TrainerError 'non-finite'. */
export type Sampler = (logits: Float32Array) => number;

/** Tokens to choose among in order of id, probabilities [ids.length] that sum to 1. */
export interface Candidates {
  readonly ids: Uint32Array;
  readonly probabilities: Float64Array;
}

/** The likeliest token, the lowest id where several are, as PyTorch's argmax. −∞ marks a token as forbidden. */
export function greedy(logits: Float32Array): number {
  let best = -1;
  let highest = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < logits.length; id += 1) {
    const logit = logits[id] ?? Number.NaN;
    if (!(logit < Number.POSITIVE_INFINITY))
      throw new TrainerError(
        'non-finite',
        `The logit of token ${id} is ${logit}: the model or its adapter holds values it cannot compute with.`,
      );
    if (logit > highest) {
      highest = logit;
      best = id;
    }
  }
  if (best === -1)
    throw new TrainerError('non-finite', `None of ${logits.length} logits is finite, so there is no token to choose.`);
  return best;
}

/** The k-th highest value. Sorts 2k at a time, so that a large vocabulary costs one pass. */
function kthHighest(values: Float32Array, k: number): number {
  let edge = Number.NEGATIVE_INFINITY;
  const highest: number[] = [];
  const cut = () => {
    highest.sort((a, b) => b - a).splice(k);
    edge = highest[k - 1] ?? edge;
  };
  for (const value of values) {
    if (value > edge) highest.push(value);
    if (highest.length >= 2 * k) cut();
  }
  cut();
  return edge;
}

/** Places of the k highest values, of which the k-th is `edge`, in order; where values tie with it the first. */
function placesOfTop(values: Float32Array | Float64Array, k: number, edge: number): Uint32Array {
  let ties = k;
  for (const value of values) if (value > edge) ties -= 1;
  const places = new Uint32Array(k);
  let found = 0;
  for (let i = 0; found < k; i += 1) {
    const value = values[i] ?? edge;
    if (value > edge || (value === edge && ties > 0)) {
      places[found] = i;
      found += 1;
      if (value === edge) ties -= 1;
    }
  }
  return places;
}

/** The nucleus of Holtzman et al. (2020), renormalised. */
function nucleus({ ids, probabilities }: Candidates, p: number): Candidates {
  // Beside the likeliest, the nucleus has no token of less than (1 − p)/(n − 1): what it and all less likely ones hold
  // must be over 1 − p. That spares sorting the whole vocabulary; the factor is for rounding.
  const highest = probabilities.reduce((most, probability) => Math.max(most, probability), 0);
  const least = Math.min(highest, (0.999 * (1 - p)) / Math.max(1, ids.length - 1));
  const sorted = probabilities.filter((probability) => probability >= least).sort();
  let mass = 0;
  let size = 0;
  let edge = highest;
  while (size < sorted.length && mass < p) {
    size += 1;
    edge = sorted[sorted.length - size] ?? 0;
    mass += edge;
  }
  const places = placesOfTop(probabilities, size, edge);
  return {
    ids: places.map((i) => ids[i] ?? 0),
    probabilities: Float64Array.from(places, (i) => (probabilities[i] ?? 0) / mass),
  };
}

/**
 * The tokens a sampler chooses among with their probabilities (temperature above 0): softmax of logits / temperature over
 * the top-k, then the nucleus of that. Throws TrainerError 'non-finite'.
 */
export function candidatesOf(logits: Float32Array, options: Omit<SamplerOptions, 'seed'>): Candidates {
  const highest = logits[greedy(logits)] ?? 0;
  const { temperature, topK = logits.length, topP = 1 } = options;
  const count = Math.min(topK, logits.length);
  const ids = placesOfTop(logits, count, count < logits.length ? kthHighest(logits, count) : Number.NEGATIVE_INFINITY);
  const probabilities = new Float64Array(ids.length);
  let total = 0;
  for (let i = 0; i < ids.length; i += 1) {
    const weight = Math.exp(((logits[ids[i] ?? 0] ?? 0) - highest) / temperature);
    probabilities[i] = weight;
    total += weight;
  }
  for (let i = 0; i < ids.length; i += 1) probabilities[i] = (probabilities[i] ?? 0) / total;
  return topP < 1 ? nucleus({ ids, probabilities }, topP) : { ids, probabilities };
}

/** Throws TrainerError 'bad-settings' naming the option that makes no sense. */
export function sampler(options: SamplerOptions): Sampler {
  const { temperature, topK, topP, seed } = options;
  const refuse = (name: string, range: string, value: number): never => {
    throw new TrainerError('bad-settings', `${name} must be ${range}; it is ${value}.`);
  };
  if (!(temperature >= 0 && temperature < Number.POSITIVE_INFINITY)) refuse('temperature', '0 or more', temperature);
  if (topK !== undefined && !(Number.isInteger(topK) && topK >= 1)) refuse('topK', 'a whole number from 1', topK);
  if (topP !== undefined && !(topP > 0 && topP <= 1)) refuse('topP', 'over 0 and at most 1', topP);
  if (temperature === 0) return greedy;
  const random = seededRandom(seed, 'sampling');
  return (logits) => {
    const { ids, probabilities } = candidatesOf(logits, options);
    let left = random.uniform();
    // Where rounding leaves the sum short of 1, the last token that can come at all is taken.
    let chosen = -1;
    for (let i = 0; i < ids.length && left >= 0; i += 1) {
      const probability = probabilities[i] ?? 0;
      if (probability > 0) chosen = ids[i] ?? chosen;
      left -= probability;
    }
    return chosen;
  };
}
