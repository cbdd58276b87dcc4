// Receipts of a state folder: one file each under `receipts/`, with the key it was checked with, ready for `weft verify`.
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type KeptReceipt, keptReceiptSchema } from '@weft/protocol';
import { keepFile } from './keep-file.ts';

export const receiptFile = (folder: string, receiptId: string): string => join(folder, 'receipts', `${receiptId}.json`);

/** Durable when this returns. */
export function keepReceipt(folder: string, kept: KeptReceipt): void {
  keepFile(receiptFile(folder, kept.receipt.receiptId), `${JSON.stringify(kept, null, 1)}\n`);
}

/** Receipts of one run; files that are none are left out. */
export function receiptsOf(folder: string, runId: string): KeptReceipt[] {
  const path = join(folder, 'receipts');
  if (!existsSync(path)) return [];
  return readdirSync(path)
    .filter((name) => name.endsWith('.json'))
    .flatMap((name) => {
      const read = keptReceiptSchema.safeParse(JSON.parse(readFileSync(join(path, name), 'utf8')));
      return read.success && read.data.receipt.runId === runId ? [read.data] : [];
    });
}

export function removeReceipt(folder: string, receiptId: string): void {
  rmSync(receiptFile(folder, receiptId), { force: true });
}
