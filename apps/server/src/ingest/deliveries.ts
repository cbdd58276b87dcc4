// From announcement to receipt. An upload that passes its checks is on disk, flushed, with its sidecar, before anybody is
// told so; whoever asks again for the same upload gets the same receipt.
import { randomBytes } from 'node:crypto';
import { type Lease, ProtocolError, pruningOf, type Receipt, type UploadBegin } from '@weft/protocol';
import { makeGrant } from '../runs/grants.ts';
import { PrunedRanks } from '../runs/pruned-ranks.ts';
import type { RunContext } from '../runs/run-context.ts';
import type { UploadRecord } from '../store/run-store.ts';
import { checkAnnouncement } from './announcement.ts';
import { checkFactors } from './factors.ts';
import type { WholeUpload } from './partial.ts';
import { StartCache } from './start-weights.ts';
import { Turns } from './turns.ts';

/** Rounds back for which a receipt is still found: a client whose line broke at the very end asks for its again. */
const ROUNDS_REMEMBERED = 2;

/** Uploads checked at once; each holds a window of its file in memory. */
const CHECKS_AT_ONCE = 4;

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
  /** Leases of these by the bytes they delivered. */
  readonly #leasesOf = new Map<string, Set<string>>();
  readonly #pruned: PrunedRanks;
  readonly #starts: StartCache;
  readonly #checks = new Turns(CHECKS_AT_ONCE);
  readonly #committing = new Map<string, { sha256: string; clientId: string; receipt: Promise<Receipt> }>();

  constructor(context: RunContext) {
    this.#context = context;
    this.#starts = new StartCache((sha256) => context.blobs.path(sha256));
    this.#pruned = new PrunedRanks(context.store, pruningOf(context.definition.settings) !== null);
    for (const round of context.store.uploadRounds().slice(-ROUNDS_REMEMBERED)) {
      for (const record of context.store.readUploads(round)) {
        if (record.withdrawn === null) this.#remember(this.#signed(record), round);
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
    const { leaseId, sha256 } = receipt;
    this.drop(leaseId);
    this.#receipts.set(leaseId, { receipt, at });
    this.#leasesOf.set(sha256, (this.#leasesOf.get(sha256) ?? new Set()).add(leaseId));
    // Oldest first.
    for (const [other, kept] of this.#receipts) {
      if (kept.at > at - ROUNDS_REMEMBERED) break;
      this.drop(other);
    }
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
    const known = this.#receipts.get(leaseId);
    if (!known) return;
    this.#receipts.delete(leaseId);
    const { sha256 } = known.receipt;
    const others = this.#leasesOf.get(sha256);
    others?.delete(leaseId);
    if (others?.size === 0) this.#leasesOf.delete(sha256);
  }

  forget(clientId: string): void {
    for (const [leaseId, { receipt }] of this.#receipts) {
      if (receipt.clientId === clientId) this.drop(leaseId);
    }
    this.#pruned.forget(clientId);
  }

  /** Whether an upload of this client is being checked now. */
  isCommitting(clientId: string): boolean {
    return [...this.#committing.values()].some((commit) => commit.clientId === clientId);
  }

  /** Whether a lease other than this one has delivered, or delivers now, these very bytes. */
  holds(sha256: string, leaseId: string): boolean {
    const delivered = this.#leasesOf.get(sha256);
    if (delivered && delivered.size > (delivered.has(leaseId) ? 1 : 0)) return true;
    return [...this.#committing].some(([other, commit]) => other !== leaseId && commit.sha256 === sha256);
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
  async begin(lease: Lease, clientId: string, begin: UploadBegin): Promise<number> {
    checkAnnouncement(begin, lease, this.#context.matrices);
    await this.#context.disk.requireRoom(begin.bytes);
    // What is being committed must not be begun again under its feet.
    const receipt = await this.#committing.get(lease.leaseId)?.receipt.catch(() => null);
    if (receipt) return this.sameAs(receipt, begin.sha256).bytes;
    return this.#context.partials.begin(clientId, begin);
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

  #commit(delivery: Delivery, sha256: string, hooks: LeaseHooks): Promise<Receipt> {
    const { partials, uploads, store, index } = this.#context;
    return partials.whole(delivery.lease.leaseId, async (upload) => {
      const record = await this.#check(delivery, sha256, upload);
      hooks.checkOpen();
      await upload.keep({ blob: uploads.path(sha256), ...store.uploadSidecar(record) });
      try {
        hooks.checkOpen();
      } catch (error) {
        // The round ended while the disk worked. Nobody has been told of a receipt.
        store.removeUpload(record.receipt.round, record.receipt.leaseId);
        throw error;
      }
      // From here on nothing waits, so the round cannot end between the receipt and its counting.
      this.#pruned.note(record);
      this.#remember(record.receipt, delivery.round);
      index.upload(record);
      hooks.accepted(record.receipt, record.rank);
      return record.receipt;
    });
  }

  /** What is to be kept of an upload that passes its checks. One that does not is removed. */
  async #check({ lease, clientId, name, own }: Delivery, sha256: string, upload: WholeUpload): Promise<UploadRecord> {
    const { matrices, now, definition, signer } = this.#context;
    const { begin } = upload;
    const sent = begin.rank === lease.grant.rank ? lease.grant : makeGrant(definition.settings, matrices, begin.rank);
    try {
      if (upload.sha256 !== sha256 || upload.sha256 !== begin.sha256) {
        throw new ProtocolError(
          'upload-hash',
          `The bytes have the SHA-256 ${upload.sha256.slice(0, 12)}…, announced was ${begin.sha256.slice(0, 12)}…. Send the upload again from the start.`,
        );
      }
      const start = await this.#starts.get(lease.start.sha256);
      await this.#checks.run(() => checkFactors(upload, start, { lease, sent }, matrices));
    } catch (error) {
      if (error instanceof ProtocolError) await upload.remove();
      throw error;
    }
    const receipt = signer.signReceipt({
      receiptId: randomBytes(12).toString('hex'),
      runId: lease.runId,
      round: lease.round,
      clientId,
      leaseId: lease.leaseId,
      sha256,
      bytes: upload.bytes,
      targetTokens: begin.targetTokens,
      acceptedAt: now().toISOString(),
    });
    return {
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
  }
}
