// What an upload claims about itself, checked before a byte of it is taken.
import { prunedRank, sparseBytes } from '@weft/formats';
import { type Lease, ProtocolError, type UploadBegin } from '@weft/protocol';
import { factorBytes, type Matrix } from '../runs/grants.ts';

/** Room for the file's header: a few names and offsets a tensor. */
export const headerAllowance = (matrices: number): number => 4096 + 512 * matrices;

/** Throws the ProtocolError that names what is wrong with the announcement. */
export function checkAnnouncement(begin: UploadBegin, lease: Lease, matrices: readonly Matrix[]): void {
  if (begin.runHash !== lease.runHash) {
    throw new ProtocolError(
      'upload-run',
      `The upload was trained for run ${begin.runHash.slice(0, 12)}…, the lease is of ${lease.runHash.slice(0, 12)}…. Start again from this run's files.`,
    );
  }
  if (begin.startHash !== lease.start.sha256) {
    throw new ProtocolError(
      'upload-start',
      `The upload was trained from start weights ${begin.startHash.slice(0, 12)}…, the lease gave ${lease.start.sha256.slice(0, 12)}…. Train again from the lease's start weights.`,
    );
  }
  const { pruning, sparse } = lease.training;
  const granted = lease.grant.rank;
  if (begin.rank !== granted && (pruning === null || begin.rank !== prunedRank(granted, pruning.gamma))) {
    const other = pruning === null ? '' : `, or ${prunedRank(granted, pruning.gamma)} where it was pruned`;
    throw new ProtocolError('upload-rank', `The upload has rank ${begin.rank}; granted was rank ${granted}${other}.`);
  }
  const data = sparse ? sparseBytes(sparse, matrices) : factorBytes(lease.grant, matrices);
  const largest = data + headerAllowance(matrices.length);
  if (begin.bytes > largest) {
    const what = sparse
      ? `elements at the density ${sparse.density}`
      : `factors of the granted rank ${lease.grant.rank}`;
    throw new ProtocolError(
      'upload-too-large',
      `The upload has ${begin.bytes} bytes; ${what} take at most ${largest}.`,
    );
  }
  const { steps, batchSize, sequenceLength } = lease.training;
  // Each claim bounds the next, so that tokens, which weigh the upload, are no more than its own steps can have processed. How
  // long it took is not judged: time says nothing that the grant does not, and a restarted server has forgotten it.
  const limits = [
    ['steps', begin.steps, steps, 'the grant allows'],
    ['examples', begin.examples, begin.steps * batchSize, `${begin.steps} steps of ${batchSize} rows hold`],
    [
      'target tokens',
      begin.targetTokens,
      begin.examples * sequenceLength,
      `${begin.examples} examples of ${sequenceLength} tokens hold`,
    ],
  ] as const;
  for (const [what, claimed, most, why] of limits) {
    if (claimed <= most) continue;
    throw new ProtocolError('upload-tokens', `The upload claims ${claimed} ${what}; ${why} at most ${most}.`);
  }
}
