// Several short examples in one row, so that less of a batch is padding. Not concatenation: makeBatch keeps the examples
// of a row apart. First-fit decreasing, whose rows number at most 11/9 of the fewest possible and a constant (Johnson, 1973).
import { TrainerError } from '../errors.ts';
import type { Example } from './examples.ts';

/**
 * Rows of at most `sequence` tokens that hold every example once: the longest first, each in the first row with room,
 * examples of one length in their order. Throws TrainerError 'bad-settings' for an example longer than a row.
 */
export function packExamples(examples: readonly Example[], sequence: number): Example[][] {
  const byLength = [...examples].sort((a, b) => b.inputIds.length - a.inputIds.length);
  const rows: { examples: Example[]; room: number }[] = [];
  let length = Number.NaN;
  let candidate = 0;
  for (const example of byLength) {
    // Rows passed over have no room for this length, and never will again: examples of one length go on from there.
    if (example.inputIds.length !== length) candidate = 0;
    length = example.inputIds.length;
    if (length > sequence)
      throw new TrainerError(
        'bad-settings',
        `An example of ${length} tokens does not fit a row of ${sequence}; encode rows for that length.`,
      );
    while ((rows[candidate]?.room ?? sequence) < length) candidate += 1;
    const row = rows[candidate];
    if (row) {
      row.examples.push(example);
      row.room -= length;
    } else {
      rows.push({ examples: [example], room: sequence - length });
    }
  }
  return rows.map((row) => row.examples);
}
