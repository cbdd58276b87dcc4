// Examples to batches of one fixed shape, padded on the right, in an order that depends only on the seed.
import { IGNORED_LABEL } from '@weft/formats';
import { seededRandom, shuffled } from '../random.ts';
import type { Example } from './examples.ts';

/** One batch as the GPU wants it, N = batch · sequence rows. */
export interface Batch {
  /** u32 [N]; 0 where padded. */
  readonly ids: Uint32Array;
  /** i32 [N]: what row n is to predict, that is the label of the token after it; −100 is ignored. */
  readonly targets: Int32Array;
  /** Labelled targets in this batch. */
  readonly targetTokens: number;
  /** Tokens without padding. */
  readonly tokens: number;
  readonly examples: number;
}

/** Packs up to `batchSize` examples; missing rows stay padding. */
export function makeBatch(examples: readonly Example[], batchSize: number, sequence: number): Batch {
  const ids = new Uint32Array(batchSize * sequence);
  const targets = new Int32Array(batchSize * sequence).fill(IGNORED_LABEL);
  let targetTokens = 0;
  let tokens = 0;
  for (const [row, example] of examples.slice(0, batchSize).entries()) {
    ids.set(example.inputIds, row * sequence);
    targets.set(example.labels.slice(1), row * sequence);
    targetTokens += example.targets;
    tokens += example.inputIds.length;
  }
  return { ids, targets, targetTokens, tokens, examples: Math.min(examples.length, batchSize) };
}

/** Endless batches: every pass over the examples is shuffled anew from (seed, pass). */
export function* trainingBatches(
  examples: readonly Example[],
  batchSize: number,
  sequence: number,
  seed: string,
): Generator<Batch, never> {
  let queue: Example[] = [];
  for (let pass = 0; ; ) {
    while (queue.length < batchSize) {
      queue.push(...shuffled(examples, seededRandom(seed, 'shuffle', String(pass))));
      pass += 1;
    }
    yield makeBatch(queue.slice(0, batchSize), batchSize, sequence);
    queue = queue.slice(batchSize);
  }
}

/** The examples once, in order. */
export function* evaluationBatches(
  examples: readonly Example[],
  batchSize: number,
  sequence: number,
): Generator<Batch> {
  for (let first = 0; first < examples.length; first += batchSize)
    yield makeBatch(examples.slice(first, first + batchSize), batchSize, sequence);
}

/** The shortest sequence that holds all examples, rounded up to 8 so that few shapes occur. */
export function sequenceFor(examples: readonly Example[], limit: number): number {
  const longest = examples.reduce((length, { inputIds }) => Math.max(length, inputIds.length), 1);
  return Math.min(limit, Math.ceil(longest / 8) * 8);
}
