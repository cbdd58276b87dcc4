// The hash tree over a committed round's uploads: one leaf a receipt with what became of it, merged or quarantined. Its signed
// head goes into the round's record; the leaves stay beside it, so that anybody who has a receipt can ask for its proof.
import {
  type InclusionProof,
  inclusionPath,
  leafHash,
  leafText,
  type Receipt,
  type TreeHead,
  treeRoot,
  type UploadOutcome,
} from '@weft/protocol';
import type { Leaf, RoundFile } from '../store/run-store.ts';
import type { Signer } from './signer.ts';

export interface RoundTree {
  readonly head: TreeHead;
  readonly leaves: Leaf[];
}

/** Leaves in the order of their hashes, which tells nothing of who came first. */
export async function buildTree(
  signer: Signer,
  round: Pick<TreeHead, 'runId' | 'round' | 'version' | 'signedAt'>,
  uploads: readonly { readonly receipt: Receipt; readonly outcome: UploadOutcome }[],
): Promise<RoundTree> {
  const leaves = await Promise.all(
    uploads.map(
      async ({ receipt, outcome }): Promise<Leaf> => ({
        receiptId: receipt.receiptId,
        outcome,
        hash: await leafHash(leafText(receipt, outcome)),
      }),
    ),
  );
  leaves.sort((a, b) => (a.hash < b.hash ? -1 : 1));
  const root = await treeRoot(leaves.map(({ hash }) => hash));
  return { head: signer.signTreeHead({ ...round, size: leaves.length, root }), leaves };
}

/** The proof of a receipt in an ended round; null when the round has no such leaf. */
export async function proofIn(file: RoundFile, receiptId: string): Promise<InclusionProof | null> {
  const { leaves, record } = file;
  const index = leaves.findIndex((leaf) => leaf.receiptId === receiptId);
  const leaf = leaves[index];
  if (!leaf || !record.tree) return null;
  const path = await inclusionPath(
    leaves.map(({ hash }) => hash),
    index,
  );
  return { receiptId, outcome: leaf.outcome, index, path, head: record.tree };
}
