// From a data file to the rows a training learns from, and those it is measured by.
import { createHash } from 'node:crypto';
import type { DataRow } from '@weft/formats';
import {
  type BaseModel,
  type Example,
  encodeRows,
  oneExamplePerRow,
  packExamples,
  sequenceFor,
  splitRows,
} from '@weft/trainer';
import { readRows } from '../../folders.ts';
import { encodingOf, formatOf } from '../../options.ts';
import { rowLimit, type TrainOptions } from './options.ts';

export interface TrainingRows {
  /** Rows of a batch: one example each, or several where they are packed. */
  readonly rows: readonly (readonly Example[])[];
  /** Tokens of a row. */
  readonly sequence: number;
  readonly examples: readonly Example[];
  readonly truncated: number;
  readonly unlabelled: number;
  readonly heldOut: { readonly examples: readonly Example[]; readonly duplicates: number } | null;
}

/** Splits rows where they are several, so that truncation is counted apart; windows of a plain text where they are not. */
function split(rows: readonly DataRow[], model: BaseModel, limit: number, options: TrainOptions) {
  const encode = (part: readonly DataRow[]) => encodeRows(part, model, limit, encodingOf(options));
  if (options.heldOut === undefined) return { ...encode(rows), heldOut: null };
  const how = { fraction: options.heldOut, seed: String(options.seed) };
  if (rows.some(({ kind }) => kind === 'plain')) {
    const all = encode(rows);
    const { train, heldOut, duplicates } = splitRows(all.examples, how);
    return { ...all, examples: train, heldOut: { examples: heldOut, duplicates } };
  }
  const { train, heldOut, duplicates } = splitRows(rows, how);
  return { ...encode(train), heldOut: { examples: encode(heldOut).examples, duplicates } };
}

/** Reads, encodes, splits and packs. Throws as readRows, encodeRows and splitRows do, and UsageError for --seq. */
export async function trainingRows(options: TrainOptions, model: BaseModel): Promise<TrainingRows> {
  const limit = rowLimit(options, model.config.maxPositions);
  const encoded = split(await readRows(options.data, formatOf(options)), model, limit, options);
  const rows = options.pack ? packExamples(encoded.examples, limit) : oneExamplePerRow(encoded.examples);
  return { ...encoded, rows, sequence: sequenceFor(rows, limit) };
}

/** A name for these rows in this order. */
export const hashOfRows = (rows: readonly (readonly Example[])[]): string =>
  createHash('sha256')
    .update(JSON.stringify(rows.map((row) => row.map(({ inputIds, labels }) => [inputIds, labels]))))
    .digest('hex');
