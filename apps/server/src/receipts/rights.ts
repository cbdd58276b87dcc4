// What a volunteer may ask of its own work in a run: take back what is not merged, be forgotten, and have a receipt proven.
// Works on a run's files and round machine; who may ask is settled by the handshake.
import { type ForgetReply, type InclusionProof, ProtocolError } from '@weft/protocol';
import { deliveredBy, isInMerge, waitsForMerge } from '../coordinator/derive.ts';
import type { Participation } from '../runs/participation.ts';
import type { RunContext } from '../runs/run-context.ts';
import { type RunDriver, WITHDRAWN } from '../runs/run-driver.ts';
import type { Forgetting, UploadRecord } from '../store/run-store.ts';
import { forgetInFiles, makePseudonym, REMAINS, withoutVolunteer } from './forget.ts';
import { proofIn } from './round-tree.ts';

export class Rights {
  readonly #context: RunContext;
  readonly #driver: RunDriver;
  readonly #volunteers: Participation;

  constructor(context: RunContext, driver: RunDriver, volunteers: Participation) {
    this.#context = context;
    this.#driver = driver;
    this.#volunteers = volunteers;
  }

  /** Finishes what a kill of the server left half done. Before the run goes on. */
  resume(): void {
    const { store } = this.#context;
    for (const entry of store.readForgetting()) this.#forget(entry);
    const { leases, late } = this.#driver.state;
    for (const round of new Set([this.#driver.state.round, ...[...leases, ...late].map((lease) => lease.round)])) {
      for (const { withdrawn, receipt } of store.readUploads(round)) {
        if (withdrawn !== null) this.#removeBytes(receipt);
      }
    }
  }

  /** Durable when this returns. Throws 'unknown-receipt' or 'already-merged'. */
  withdraw(clientId: string, receiptId: string): { receiptId: string; withdrawnAt: string } {
    const { archive, journal, state } = this.#driver;
    const { store, now } = this.#context;
    const receipt = this.#volunteers.deliveries.find(clientId, receiptId);
    // A merge that was begun, or one that is over: late work may have been in that of a later round.
    const inTree = archive.files().some(({ leaves }) => leaves.some((leaf) => leaf.receiptId === receiptId));
    if (inTree) throw this.#merged();
    if (!receipt) throw this.#unknown(receiptId);
    if (isInMerge(state, receipt.leaseId)) throw this.#merged();
    const mayStillCount = waitsForMerge(state, receipt.leaseId);
    const wasAbandoned = archive.of(receipt.round)?.record.outcome === 'abandoned';
    if (!mayStillCount && !wasAbandoned) throw this.#merged();
    const record = store.readUpload(receipt.round, receipt.leaseId);
    if (!record) throw this.#unknown(receiptId);
    const withdrawnAt = now().toISOString();
    this.#driver.log('info', `${this.#driver.label(clientId)} took back its upload of round ${receipt.round}.`);
    journal.event('withdrawn', { clientId, receiptId, round: receipt.round });
    this.#withdraw(record, withdrawnAt);
    return { receiptId, withdrawnAt };
  }

  #withdraw(record: UploadRecord, withdrawnAt: string): void {
    const { receipt } = record;
    this.#context.store.writeUpload({ ...record, withdrawn: withdrawnAt });
    this.#volunteers.deliveries.drop(receipt.leaseId);
    this.#context.index.receiptsChanged(receipt.runId, receipt.round);
    this.#driver.dispatch({ type: 'withdrawn', leaseId: receipt.leaseId, reason: WITHDRAWN });
    this.#removeBytes(receipt);
  }

  /** Equal bytes are one blob, and another's upload may be of them. */
  #removeBytes({ sha256, leaseId }: UploadRecord['receipt']): void {
    const { uploads, isNeededAnywhere } = this.#context;
    if (!isNeededAnywhere(sha256, leaseId)) uploads.remove(sha256);
  }

  #merged(): ProtocolError {
    return new ProtocolError(
      'already-merged',
      'The merge of this round has begun; an update cannot be taken out of a merge. "Forget me" still removes the raw upload.',
    );
  }

  #unknown(receiptId: string): ProtocolError {
    return new ProtocolError(
      'unknown-receipt',
      `This client has no upload with receipt ${receiptId} that could be taken back; it was withdrawn already, or is older than two rounds.`,
    );
  }

  /** Removes a volunteer from the run. Throws 'round-closed', with a time to come back, while its upload is being merged. */
  async forget(clientId: string): Promise<ForgetReply> {
    const { state } = this.#driver;
    const { deliveries } = this.#volunteers;
    const { partials, store } = this.#context;
    const isMerged = deliveredBy(state, clientId).some(({ leaseId }) => isInMerge(state, leaseId));
    if (deliveries.isCommitting(clientId) || isMerged) {
      throw new ProtocolError('round-closed', 'Your update is being merged right now. Ask again in a moment.', {
        retryAfterMs: 2_000,
      });
    }
    const live = state.leases.filter((lease) => lease.clientId === clientId && lease.state === 'live');
    this.#volunteers.leave(clientId);
    for (const { leaseId } of live) await partials.discard(leaseId);
    const entry = { clientId, pseudonym: makePseudonym() };
    store.writeForgetting(entry);
    return this.#forget(entry);
  }

  #forget(entry: Forgetting): ForgetReply {
    const { archive, clients, journal, state } = this.#driver;
    const { clientId, pseudonym } = entry;
    const { store, uploads, index, definition, bans, isNeededAnywhere, now } = this.#context;
    let withdrawn = 0;
    for (const { leaseId, round } of deliveredBy(state, clientId)) {
      const record = waitsForMerge(state, leaseId) ? store.readUpload(round, leaseId) : null;
      if (!record || record.withdrawn !== null) continue;
      this.#withdraw(record, now().toISOString());
      withdrawn += 1;
    }
    const known = clients.nameOf(clientId);
    const { deleted, names } = forgetInFiles({ store, archive, uploads, isNeeded: isNeededAnywhere }, entry);
    this.#driver.dispatch({ type: 'forgotten', clientId, pseudonym });
    const without = withoutVolunteer(entry, known === null ? names : [...names, known]);
    journal.rewrite(without);
    clients.remove(clientId);
    this.#volunteers.deliveries.forget(clientId);
    bans.forgetAddress(clientId);
    index.filesChanged(definition.runId);
    store.removeForgetting(entry);
    this.#driver.log('info', 'A volunteer asked to be forgotten: its uploads and all that named it were removed.');
    return { withdrawn, deleted: deleted + withdrawn, remains: [...REMAINS] };
  }

  /** Throws 'no-proof' while the round has no signed record, 'unknown-receipt' where there is no such leaf. */
  async proof(receiptId: string): Promise<InclusionProof> {
    const { archive } = this.#driver;
    for (const file of archive.files()) {
      const proof = await proofIn(file, receiptId);
      if (proof) return proof;
    }
    const receipt = this.#volunteers.deliveries.find(null, receiptId);
    if (!receipt) {
      throw new ProtocolError(
        'unknown-receipt',
        `No committed round of this run has an upload with receipt ${receiptId}.`,
      );
    }
    const ended = archive.of(receipt.round)?.record;
    throw ended
      ? new ProtocolError(
          'no-proof',
          `Round ${receipt.round} was ${ended.outcome} and has no signed record. ${ended.reason ?? ''}`.trim(),
        )
      : new ProtocolError('no-proof', `Round ${receipt.round} is not committed yet; ask again when it is.`, {
          retryAfterMs: 10_000,
        });
  }
}
