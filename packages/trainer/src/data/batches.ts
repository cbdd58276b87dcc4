// Examples to batches of one fixed shape, padded on the right, in an order that depends only on the seed. A row of a batch
// holds one example, or several laid end to end (packing.ts); spans and positions keep them from seeing each other.
import { IGNORED_LABEL } from '@weft/formats';
import { TrainerError } from '../errors.ts';
import { seededRandom, shuffled } from '../random.ts';
import type { Example } from './examples.ts';

/** One batch as the GPU wants it, N = rows · sequence. */
export interface Batch {
  /** u32 [N]; 0 where padded. */
  readonly ids: Uint32Array;
  /** i32 [N]: what row n is to predict, that is the label of the token after it in its example; −100 is ignored. */
  readonly targets: Int32Array;
  /** u32 [N]: position within its example; 0 where padded. */
  readonly positions: Uint32Array;
  /** u32 [N, 2]: first and last of the N rows that query n sees: its example up to itself. Padding sees itself. */
  readonly querySpans: Uint32Array;
  /** u32 [N, 2]: first and last of the N rows that see key n: itself and the rest of its example. */
  readonly keySpans: Uint32Array;
  /** Labelled targets in this batch. */
  readonly targetTokens: number;
  /** Tokens without padding. */
  readonly tokens: number;
  readonly examples: number;
}

export interface BatchShape {
  /** Rows an optimiser step learns from. */
  readonly batch: number;
  /** Rows on the GPU at a time; divides `batch`. */
  readonly microBatch: number;
  /** Tokens a row holds. */
  readonly sequence: number;
}

/** Every example in a row of its own. */
export const oneExamplePerRow = (examples: readonly Example[]): Example[][] => examples.map((example) => [example]);

/** Tokens of an example, or of all examples of a row. */
const lengthOf = (item: Example | readonly Example[]): number =>
  'inputIds' in item ? item.inputIds.length : item.reduce((sum, { inputIds }) => sum + inputIds.length, 0);

/**
 * Lays up to `rowCount` rows out; missing rows stay padding. Throws TrainerError 'bad-settings' when there are more rows,
 * or one has more than `sequence` tokens.
 */
export function makeBatch(rows: readonly (readonly Example[])[], rowCount: number, sequence: number): Batch {
  if (rows.length > rowCount)
    throw new TrainerError('bad-settings', `${rows.length} rows do not fit a batch of ${rowCount}; ask for more rows.`);
  const size = rowCount * sequence;
  const ids = new Uint32Array(size);
  const targets = new Int32Array(size).fill(IGNORED_LABEL);
  const positions = new Uint32Array(size);
  // What is not overwritten below is padding, which sees itself alone.
  const querySpans = Uint32Array.from({ length: 2 * size }, (_, i) => i >> 1);
  const keySpans = querySpans.slice();
  const count = { targetTokens: 0, tokens: 0, examples: 0 };
  for (const [r, row] of rows.entries()) {
    const length = lengthOf(row);
    if (length > sequence)
      throw new TrainerError(
        'bad-settings',
        `A row of ${length} tokens does not fit a sequence of ${sequence}; lengthen the sequence or encode rows for it.`,
      );
    let first = r * sequence;
    for (const { inputIds, labels, targets: labelled } of row) {
      const last = first + inputIds.length - 1;
      ids.set(inputIds, first);
      targets.set(labels.slice(1), first);
      for (let n = first; n <= last; n += 1) {
        positions[n] = n - first;
        querySpans.set([first, n], 2 * n);
        keySpans.set([n, last], 2 * n);
      }
      first = last + 1;
      count.targetTokens += labelled;
      count.examples += 1;
    }
    count.tokens += length;
  }
  return { ids, targets, positions, querySpans, keySpans, ...count };
}

/**
 * Endless steps, each of batch / microBatch micro-batches: every pass over the rows is shuffled anew from (seed, pass).
 * Throws TrainerError 'bad-settings' when there is no row, or micro-batches do not divide the batch.
 */
export function* trainingBatches(
  rows: readonly (readonly Example[])[],
  { batch, microBatch, sequence }: BatchShape,
  seed: string,
): Generator<readonly Batch[], never> {
  if (rows.length === 0) throw new TrainerError('bad-settings', 'There are no rows to train on.');
  if (!(microBatch >= 1 && batch >= 1 && batch % microBatch === 0))
    throw new TrainerError(
      'bad-settings',
      `A batch of ${batch} rows cannot be cut into micro-batches of ${microBatch}; choose a divisor of ${batch}.`,
    );
  let queue: (readonly Example[])[] = [];
  for (let pass = 0; ; ) {
    while (queue.length < batch) {
      queue.push(...shuffled(rows, seededRandom(seed, 'shuffle', String(pass))));
      pass += 1;
    }
    yield Array.from({ length: batch / microBatch }, (_, i) =>
      makeBatch(queue.slice(i * microBatch, (i + 1) * microBatch), microBatch, sequence),
    );
    queue = queue.slice(batch);
  }
}

/** The rows once, in order. */
export function* evaluationBatches(
  rows: readonly (readonly Example[])[],
  rowCount: number,
  sequence: number,
): Generator<Batch> {
  for (let first = 0; first < rows.length; first += rowCount)
    yield makeBatch(rows.slice(first, first + rowCount), rowCount, sequence);
}

/** The shortest sequence that holds all examples, or all packed rows, rounded up to 8 so that few shapes occur. */
export function sequenceFor(items: readonly (Example | readonly Example[])[], limit: number): number {
  const longest = items.reduce((length, item) => Math.max(length, lengthOf(item)), 1);
  return Math.min(limit, Math.ceil(longest / 8) * 8);
}
