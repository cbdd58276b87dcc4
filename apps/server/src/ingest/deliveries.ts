// From announcement to receipt. An upload that passes its checks is on disk, flushed, with its sidecar, before anybody is
// told so; whoever asks again for the same upload gets the same receipt.
import { randomBytes } from 'node:crypto';
import { sha256Hex } from '@weft/formats';
import { type Lease, ProtocolError, pruningOf, type Receipt, type UploadBegin } from '@weft/protocol';
import { makeGrant } from '../runs/grants.ts';
import { PrunedRanks } from '../runs/pruned-ranks.ts';
import type { RunContext } from '../runs/run-context.ts';
import type { UploadRecord } from '../store/run-store.ts';
import { checkAnnouncement } from './announcement.ts';
import { checkFactors } from './factors.ts';

/** Rounds back for which a receipt is still found: a client whose line broke at the very end asks for its again. */
const ROUNDS_REMEMBERED = 2;

export interface Delivery {
  readonly lease: Lease;
  readonly clientId: string;
  readonly name: string | null;
  readonly own: boolean;
  /** The round in progress: that of the lease, or a later one where it comes late. */
  readonly round: number;
}

/** The round's side of a commit. */
export interface LeaseHooks {
  /** Throws when the lease can no longer deliver. Asked again after every wait. */
  checkOpen(): void;
  /** The receipt of an upload of this rank is on disk. Must count it at once. */
  accepted(receipt: Receipt, rank: number): void;
}

export class Deliveries {
  readonly #context: RunContext;
  /** With the round in progress when it was made: that of its lease may be long over. */
  readonly #receipts = new Map<string, { readonly receipt: Receipt; readonly at: number }>();
  readonly #pruned: PrunedRanks;
  readonly #committing = new Map<string, { sha256: string; clientId: string; receipt: Promise<Receipt> }>();

  constructor(context: RunContext) {
    this.#context = context;
    this.#pruned = new PrunedRanks(context.store, pruningOf(context.definition.settings) !== null);
    for (const round of context.store.uploadRounds().slice(-ROUNDS_REMEMBERED)) {
      for (const record of context.store.readUploads(round)) {
        const { leaseId } = record.receipt;
        if (record.withdrawn === null) this.#receipts.set(leaseId, { receipt: this.#signed(record), at: round });
      }
    }
  }

  /** The receipt; one of a server that did not sign yet is signed first. */
  #signed(record: UploadRecord): Receipt {
    if (record.receipt.signature !== '') return record.receipt;
    const { keyId: _none, signature: _empty, ...fields } = record.receipt;
    const receipt = this.#context.signer.signReceipt(fields);
    this.#context.store.writeUpload({ ...record, receipt });
    return receipt;
  }

  #remember(receipt: Receipt, at: number): void {
    this.#receipts.set(receipt.leaseId, { receipt, at });
    for (const [leaseId, kept] of this.#receipts) if (kept.at <= at - ROUNDS_REMEMBERED) this.#receipts.delete(leaseId);
  }

  /** The receipt this client got for the lease, or null. */
  known(clientId: string, leaseId: string): Receipt | null {
    const receipt = this.#receipts.get(leaseId)?.receipt;
    return receipt?.clientId === clientId ? receipt : null;
  }

  /** A receipt of the latest rounds by its id; with `clientId`, only one of this client. */
  find(clientId: string | null, receiptId: string): Receipt | null {
    for (const { receipt } of this.#receipts.values()) {
      if (receipt.receiptId === receiptId && (clientId === null || receipt.clientId === clientId)) return receipt;
    }
    return null;
  }

  /** The upload of this lease was taken back. */
  drop(leaseId: string): void {
    this.#receipts.delete(leaseId);
  }

  forget(clientId: string): void {
    for (const [leaseId, { receipt }] of this.#receipts) {
      if (receipt.clientId === clientId) this.#receipts.delete(leaseId);
    }
    this.#pruned.forget(clientId);
  }

  /** Whether an upload of this client is being checked now. */
  isCommitting(clientId: string): boolean {
    return [...this.#committing.values()].some((commit) => commit.clientId === clientId);
  }

  /** Whether a lease other than this one has delivered, or delivers now, these very bytes. */
  holds(sha256: string, leaseId: string): boolean {
    const others = [...this.#receipts.values()].some(
      ({ receipt }) => receipt.sha256 === sha256 && receipt.leaseId !== leaseId,
    );
    return others || [...this.#committing].some(([other, commit]) => other !== leaseId && commit.sha256 === sha256);
  }

  /** Rank that may be granted to a client which asks for `rank`: no more than pruning has left it. */
  cap(clientId: string, rank: number): number {
    return this.#pruned.cap(clientId, rank);
  }

  /** The receipt, when it is for these bytes; else throws 'already-committed'. */
  sameAs(receipt: Receipt, sha256: string): Receipt {
    if (receipt.sha256 === sha256) return receipt;
    throw new ProtocolError(
      'already-committed',
      `The lease has already delivered upload ${receipt.sha256.slice(0, 12)}…; a lease delivers once.`,
    );
  }

  /** Returns the offset at which the client goes on. */
  async begin(lease: Lease, begin: UploadBegin): Promise<number> {
    checkAnnouncement(begin, lease, this.#context.matrices);
    return this.#context.partials.begin(begin);
  }

  chunk(leaseId: string, offset: number, bytes: Uint8Array): Promise<number> {
    return this.#context.partials.chunk(leaseId, offset, bytes);
  }

  commit(delivery: Delivery, sha256: string, lease: LeaseHooks): Promise<Receipt> {
    const { leaseId } = delivery.lease;
    const committing = this.#committing.get(leaseId);
    if (committing?.sha256 === sha256) return committing.receipt;
    const before = committing?.receipt.catch(() => null) ?? Promise.resolve(null);
    const receipt = before.then((first) => first ?? this.#commit(delivery, sha256, lease));
    const entry = { sha256, clientId: delivery.clientId, receipt };
    this.#committing.set(leaseId, entry);
    return receipt
      .finally(() => {
        if (this.#committing.get(leaseId) === entry) this.#committing.delete(leaseId);
      })
      .then((made) => this.sameAs(made, sha256));
  }

  async #commit(delivery: Delivery, sha256: string, hooks: LeaseHooks): Promise<Receipt> {
    const { partials, uploads, blobs, matrices, store, now, index, definition, signer } = this.#context;
    const { lease, clientId, name, own } = delivery;
    const { begin, bytes } = await partials.whole(lease.leaseId);
    const sent = begin.rank === lease.grant.rank ? lease.grant : makeGrant(definition.settings, matrices, begin.rank);
    try {
      const actual = await sha256Hex(bytes);
      if (actual !== sha256 || actual !== begin.sha256) {
        throw new ProtocolError(
          'upload-hash',
          `The bytes have the SHA-256 ${actual.slice(0, 12)}…, announced was ${begin.sha256.slice(0, 12)}…. Send the upload again from the start.`,
        );
      }
      checkFactors(bytes, blobs.read(lease.start.sha256), { lease, sent }, matrices);
    } catch (error) {
      await partials.discard(lease.leaseId);
      throw error;
    }
    hooks.checkOpen();
    await partials.keep(lease.leaseId, (file) => void uploads.adopt(file, sha256));
    hooks.checkOpen();
    // From here on nothing waits, so the round cannot end between the receipt and its counting.
    const receipt = signer.signReceipt({
      receiptId: randomBytes(12).toString('hex'),
      runId: lease.runId,
      round: lease.round,
      clientId,
      leaseId: lease.leaseId,
      sha256,
      bytes: bytes.length,
      targetTokens: begin.targetTokens,
      acceptedAt: now().toISOString(),
    });
    const record: UploadRecord = {
      receipt,
      begin,
      name,
      rank: begin.rank,
      grant: lease.grant,
      sent,
      task: lease.task,
      own,
      startVersion: lease.startVersion,
      withdrawn: null,
    };
    store.writeUpload(record);
    this.#pruned.note(record);
    this.#remember(receipt, delivery.round);
    index.upload(record);
    hooks.accepted(receipt, begin.rank);
    return receipt;
  }
}
