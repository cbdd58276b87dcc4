// What a volunteer can hold the server to: its signed receipt of an upload, the signed head of the hash tree over a round's
// uploads, and the proof that one is in the other. Checking needs nothing but these and the server's public key.
import { z } from 'zod';
import { leafHash, rootFromPath } from './hash-tree.ts';
import { isSignedBy, type PublicKey, type ReceiptKey } from './keys.ts';
import { canonicalJson, countSchema, idSchema, sha256Schema } from './primitives.ts';

/** Base64url of a P1363 (r‖s) ECDSA-SHA-256 signature. Empty only in files of servers that did not sign yet. */
const signatureSchema = z.string().max(200);

/** The server's word that an upload is on its disk and will be merged or quarantined, never lost. */
export const receiptSchema = z.object({
  receiptId: idSchema,
  runId: idSchema,
  round: z.int().positive(),
  clientId: idSchema,
  leaseId: idSchema,
  sha256: sha256Schema,
  bytes: z.int().positive(),
  targetTokens: z.int().positive(),
  /** ISO 8601, UTC. */
  acceptedAt: z.iso.datetime(),
  /** The server's key that signed. */
  keyId: idSchema,
  /** Over {@link receiptText}. */
  signature: signatureSchema,
});
export type Receipt = z.infer<typeof receiptSchema>;

/** What became of an upload when its round was merged. */
export const uploadOutcomeSchema = z.object({
  merged: z.boolean(),
  /** Why it was quarantined; null when it was merged. */
  reason: z.string().nullable(),
});
export type UploadOutcome = z.infer<typeof uploadOutcomeSchema>;

/** The server's word about all uploads of a committed round at once. */
export const treeHeadSchema = z.object({
  runId: idSchema,
  round: z.int().positive(),
  /** Version of the global adapter that the round made. */
  version: z.int().positive(),
  /** Leaves: the uploads of the round, quarantined ones included. */
  size: countSchema,
  root: sha256Schema,
  /** ISO 8601, UTC. */
  signedAt: z.iso.datetime(),
  keyId: idSchema,
  /** Over {@link treeHeadText}. */
  signature: signatureSchema,
});
export type TreeHead = z.infer<typeof treeHeadSchema>;

/** That one receipt is a leaf of its round's tree. */
export const inclusionProofSchema = z.object({
  receiptId: idSchema,
  outcome: uploadOutcomeSchema,
  /** Place of the leaf, from 0. */
  index: countSchema,
  /** Hashes beside the way up to the root, lowest first. */
  path: z.array(sha256Schema).max(64),
  head: treeHeadSchema,
});
export type InclusionProof = z.infer<typeof inclusionProofSchema>;

/** The text a receipt's signature is over. */
export function receiptText({ signature: _signature, ...fields }: Receipt): string {
  return `weft-receipt:${canonicalJson(fields)}`;
}

/** The text a tree head's signature is over. */
export function treeHeadText({ signature: _signature, ...fields }: TreeHead): string {
  return `weft-round:${canonicalJson(fields)}`;
}

/** Content of a leaf: the receipt as it was given out, and what became of the upload. */
export const leafText = (receipt: Receipt, outcome: UploadOutcome): string => canonicalJson({ outcome, receipt });

/** Whether the receipt is the word of the holder of this key, every field of it. */
export async function isReceiptSigned(receipt: Receipt, key: ReceiptKey): Promise<boolean> {
  return receipt.keyId === key.keyId && (await isSignedBy(key.publicKey, receiptText(receipt), receipt.signature));
}

/** What is wrong with a proof, as a sentence; null when it holds. `publicKey` is the server's. */
export async function faultOfProof(
  receipt: Receipt,
  proof: InclusionProof,
  publicKey: PublicKey,
): Promise<string | null> {
  const { head } = proof;
  if (proof.receiptId !== receipt.receiptId) return `The proof is of another receipt, ${proof.receiptId}.`;
  if (head.runId !== receipt.runId || head.round !== receipt.round) {
    return `The proof is of round ${head.round} of run ${head.runId}; the receipt is of round ${receipt.round} of run ${receipt.runId}.`;
  }
  if (!(await isSignedBy(publicKey, treeHeadText(head), head.signature))) {
    return 'The record of the round was not signed by this key.';
  }
  const root = await rootFromPath(await leafHash(leafText(receipt, proof.outcome)), { ...proof, size: head.size });
  if (root !== head.root) return 'The receipt with this outcome is not in the signed record of the round.';
  return null;
}
