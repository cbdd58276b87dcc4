// The server's own key: it signs receipts and the records of rounds. Made once for a data folder and kept there, readable by
// its owner alone; whoever loses it can still check old receipts with the public half, but not sign new ones as the same.
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { join } from 'node:path';
import {
  publicKeySchema,
  type Receipt,
  type ReceiptKey,
  receiptText,
  type TreeHead,
  treeHeadText,
} from '@weft/protocol';
import { z } from 'zod';
import { clientIdOf } from '../auth/client-key.ts';
import { ServerError } from '../errors.ts';
import { readJson, writeJson } from '../store/files.ts';

const keyFileSchema = z.object({ privateKey: publicKeySchema.extend({ d: z.string() }), createdAt: z.iso.datetime() });

export interface Signer {
  readonly key: ReceiptKey;
  signReceipt(fields: Omit<Receipt, 'keyId' | 'signature'>): Receipt;
  signTreeHead(fields: Omit<TreeHead, 'keyId' | 'signature'>): TreeHead;
}

/** Opens the data folder's key, or makes it. Throws ServerError 'data-dir-corrupt' for a file that holds none. */
export function openSigner(dataDir: string, now: Date): Signer {
  const path = join(dataDir, 'keys', 'receipts.json');
  let kept = readJson(path, keyFileSchema);
  if (!kept) {
    const jwk = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
    kept = keyFileSchema.parse({ privateKey: jwk, createdAt: now.toISOString() });
    writeJson(path, kept, { mode: 0o600 });
  }
  let privateKey: KeyObject;
  try {
    privateKey = createPrivateKey({ key: { ...kept.privateKey }, format: 'jwk' });
  } catch (cause) {
    throw new ServerError('data-dir-corrupt', `${path} holds no key. Restore it from a backup.`, { cause });
  }
  const publicKey = publicKeySchema.parse(createPublicKey(privateKey).export({ format: 'jwk' }));
  const key: ReceiptKey = { keyId: clientIdOf(publicKey), publicKey };
  const signText = (text: string): string =>
    sign('sha256', Buffer.from(text), { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url');
  return {
    key,
    signReceipt(fields) {
      const unsigned = { ...fields, keyId: key.keyId, signature: '' };
      return { ...unsigned, signature: signText(receiptText(unsigned)) };
    },
    signTreeHead(fields) {
      const unsigned = { ...fields, keyId: key.keyId, signature: '' };
      return { ...unsigned, signature: signText(treeHeadText(unsigned)) };
    },
  };
}
