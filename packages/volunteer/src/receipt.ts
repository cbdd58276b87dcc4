// The check of a receipt when it arrives: signed by the run's key, and about this very upload. A server that cannot sign its word
// should not be worked for.
import { isReceiptSigned, type Receipt, type ReceiptKey, type UploadBegin } from '@weft/protocol';
import { SessionError } from './errors.ts';

/** Rejects with SessionError 'receipt'. */
export async function checkReceipt(
  receipt: Receipt,
  sent: UploadBegin,
  { clientId, runId, receiptKey }: { clientId: string; runId: string; receiptKey: ReceiptKey },
): Promise<void> {
  const expected = {
    runId,
    clientId,
    leaseId: sent.leaseId,
    sha256: sent.sha256,
    bytes: sent.bytes,
    targetTokens: sent.targetTokens,
  };
  const wrong = (Object.keys(expected) as (keyof typeof expected)[]).find(
    (field) => receipt[field] !== expected[field],
  );
  if (wrong !== undefined) {
    throw new SessionError(
      'receipt',
      `The server’s receipt is of another upload: its ${wrong} differs. Tell the operator.`,
    );
  }
  if (await isReceiptSigned(receipt, receiptKey)) return;
  throw new SessionError(
    'receipt',
    'The server’s receipt is not signed by the key of this run, so it proves nothing. The update was delivered; tell the operator.',
  );
}
