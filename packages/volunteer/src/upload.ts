// Sends one update: begin, chunks with at most two unanswered, commit. After a broken line it asks where the upload stands
// and goes on from there; asking twice for the same thing is safe at every step.
import { sha256Hex } from '@weft/formats';
import {
  CHUNK_BYTES,
  type Lease,
  MAX_CHUNKS_IN_FLIGHT,
  ProtocolError,
  type Receipt,
  type ReceiptKey,
  type UploadBegin,
} from '@weft/protocol';
import type { Line } from './line.ts';
import type { TrainingResult } from './ports.ts';
import { checkReceipt } from './receipt.ts';

export interface UploadOptions {
  readonly line: Line;
  readonly lease: Lease;
  readonly result: TrainingResult;
  /** Who the receipt must be for, and signed by. */
  readonly party: { readonly clientId: string; readonly runId: string; readonly receiptKey: ReceiptKey };
  readonly signal: AbortSignal;
  whenRunning(): Promise<void>;
  /** Bytes the server has acknowledged. */
  onBytes(bytes: number): void;
}

/** Answers after which the server has to be asked where the upload stands. */
const asksForBegin = (error: unknown): boolean =>
  error instanceof ProtocolError && (error.code === 'upload-offset' || error.code === 'upload-hash');

/** Times an upload may start over without the server acknowledging anything new. */
const MOST_RESTARTS = 3;

/** What is announced before the bytes. */
export async function announce(lease: Lease, result: TrainingResult): Promise<UploadBegin> {
  return {
    leaseId: lease.leaseId,
    runHash: lease.runHash,
    startHash: lease.start.sha256,
    dtype: 'F32',
    rank: result.rank,
    bytes: result.update.length,
    sha256: await sha256Hex(result.update),
    targetTokens: result.targetTokens,
    examples: result.examples,
    steps: result.steps,
    firstLoss: result.firstLoss,
    lastLoss: result.lastLoss,
    tokensPerSecond: result.tokensPerSecond,
  };
}

/** Delivers the update; resolves with the receipt. Rejects with the server's ProtocolError, or the signal's reason. */
export async function sendUpload(options: UploadOptions): Promise<Receipt> {
  const { line, lease, result, signal, onBytes, party } = options;
  const begin = await announce(lease, result);
  let restarts = 0;
  let attempt = 0;
  let farthest = 0;
  for (;;) {
    try {
      const { offset } = await line.once('upload:begin', begin, signal);
      onBytes(offset);
      await sendChunks(options, offset, (acknowledged) => {
        if (acknowledged > farthest) {
          farthest = acknowledged;
          restarts = 0;
          attempt = 0;
        }
        onBytes(acknowledged);
      });
      const receipt = await line.once('upload:commit', { leaseId: lease.leaseId, sha256: begin.sha256 }, signal);
      await checkReceipt(receipt, begin, party);
      return receipt;
    } catch (error) {
      signal.throwIfAborted();
      if (asksForBegin(error) && restarts < MOST_RESTARTS) restarts += 1;
      else await line.rest(error, attempt++, signal);
    }
  }
}

async function sendChunks(options: UploadOptions, from: number, acknowledged: (bytes: number) => void): Promise<void> {
  const { line, lease, result, signal, whenRunning } = options;
  const { update } = result;
  const inFlight: Promise<{ offset: number }>[] = [];
  let next = from;
  while (next < update.length || inFlight.length > 0) {
    while (next < update.length && inFlight.length < MAX_CHUNKS_IN_FLIGHT) {
      await whenRunning();
      const end = Math.min(next + CHUNK_BYTES, update.length);
      // A copy, because a view would drag the whole update's buffer along through some transports.
      const bytes = update.slice(next, end);
      const answer = line.once('upload:chunk', { leaseId: lease.leaseId, offset: next, bytes }, signal);
      // When the chunk before this one fails, nobody awaits this one; its failure has the same cause.
      answer.catch(() => undefined);
      inFlight.push(answer);
      next = end;
    }
    const answer = await inFlight.shift();
    if (answer) acknowledged(answer.offset);
  }
}
