// Receipts as a volunteer keeps them, and as the page hands them out: each with the key it was checked with when it came, so that
// it can be checked again without the server.
import { z } from 'zod';
import { receiptKeySchema } from './keys.ts';
import { receiptSchema } from './receipts.ts';

export const keptReceiptSchema = z.object({
  receipt: receiptSchema,
  key: receiptKeySchema,
  /** Origin of the server, such as `https://weft.example`. */
  server: z.string().max(300),
});
export type KeptReceipt = z.infer<typeof keptReceiptSchema>;

/** One file with all of them. */
export const receiptsFileSchema = z.object({ receipts: z.array(keptReceiptSchema).max(100_000) });
