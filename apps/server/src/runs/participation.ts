// What one run's volunteers ask for: a place, more time, a receipt. Checks what the round machine cannot know and hands it
// the rest as events; what follows from them is the driver's.
import { randomBytes } from 'node:crypto';
import {
  type Heartbeat,
  type Join,
  type JoinReply,
  ProtocolError,
  type Receipt,
  type ReleaseReason,
  type RoundView,
  type UploadBegin,
} from '@weft/protocol';
import { lateEntryOf, leaseOf } from '../coordinator/derive.ts';
import type { LeaseEntry } from '../coordinator/types.ts';
import { Deliveries } from '../ingest/deliveries.ts';
import { checkJoin, RELEASE_REASONS } from './admission.ts';
import { retryAfterMs } from './retry.ts';
import type { RunContext } from './run-context.ts';
import type { RunDriver } from './run-driver.ts';
import { waitingReason } from './views.ts';

export class Participation {
  readonly #context: RunContext;
  readonly #driver: RunDriver;
  readonly deliveries: Deliveries;

  constructor(context: RunContext, driver: RunDriver) {
    this.#context = context;
    this.#driver = driver;
    this.deliveries = new Deliveries(context);
  }

  connected(clientId: string, name: string | null, volunteers: boolean): void {
    this.#driver.clients.connected(clientId, name, volunteers);
    this.#presentChanged();
  }

  /** Only where the cohort waits for all who are here does their number decide anything; elsewhere it is shown. */
  #presentChanged(): void {
    const { state, clients } = this.#driver;
    if (state.policy.deterministic) this.#driver.dispatch({ type: 'present', count: clients.present() });
    else this.#driver.changed();
  }

  /** A lease outlives its socket: the volunteer may come back before it runs out. */
  disconnected(clientId: string): void {
    if (this.#driver.clients.disconnected(clientId)) {
      this.#driver.evaluations.release(clientId);
      if (this.#driver.state.wishes.some((wish) => wish.clientId === clientId)) {
        this.#driver.dispatch({ type: 'withdraw', clientId });
      }
    }
    this.#presentChanged();
  }

  /** Any frame of a client is a sign of life of its lease. */
  sawFrame(clientId: string): void {
    this.#driver.clients.seen(clientId);
    const lease = this.#driver.liveLeaseOf(clientId);
    if (lease) this.#driver.leaseClock.renew(lease.leaseId);
  }

  join(clientId: string, join: Join): Promise<JoinReply> {
    return this.#context.gate.pass(() => this.#join(clientId, join));
  }

  async #join(clientId: string, join: Join): Promise<JoinReply> {
    checkJoin(join, this.#context.definition.settings, this.#driver.state);
    // Who has pruned is granted what it kept: docs/decisions/0008-rank-self-pruning.md.
    const rank = this.deliveries.cap(clientId, join.proposal.rank);
    const own = join.data.kind === 'own';
    const task = join.data.kind === 'task' ? join.data.task : null;
    this.#driver.clients.proposed(clientId, join.device, rank);
    const held = this.#driver.liveLeaseOf(clientId);
    const sameWish = held && held.rank === rank && held.own === own && (task === null || task === held.task);
    if (!sameWish) {
      if (held) this.#driver.lost(held.leaseId, RELEASE_REASONS['rank-changed']);
      const leaseId = randomBytes(12).toString('hex');
      this.#driver.ask({ leaseId, clientId, key: this.#keyOf(clientId), rank, task, own });
    }
    const entry = this.#driver.liveLeaseOf(clientId);
    if (entry) return { status: 'leased', lease: await this.#driver.makeLease(entry) };
    return {
      status: 'waiting',
      reason: waitingReason(this.#driver.state, clientId),
      retryAfterMs: retryAfterMs(this.#driver.state, Math.random()),
      round: this.#driver.roundView(),
    };
  }

  /** Keys are random, so an experiment that is to repeat itself goes by the names it gave its clients. */
  #keyOf(clientId: string): string {
    return (this.#driver.state.policy.deterministic ? this.#driver.clients.nameOf(clientId) : null) ?? clientId;
  }

  /** Gives up the wish to train, and the lease if there is one. */
  leave(clientId: string): void {
    const lease = this.#driver.liveLeaseOf(clientId);
    if (lease) this.#driver.lost(lease.leaseId, RELEASE_REASONS.stopped);
    this.#driver.dispatch({ type: 'withdraw', clientId });
  }

  heartbeat(clientId: string, heartbeat: Heartbeat): { leaseMs: number; round: RoundView } {
    const entry = this.#entry(clientId, heartbeat.leaseId);
    const { leaseMs, hiddenLeaseMs } = this.#context.timing;
    const late = lateEntryOf(this.#driver.state, entry.leaseId);
    const length = late ? Math.max(1, Math.round(late.remainingMs)) : heartbeat.hidden ? hiddenLeaseMs : leaseMs;
    if (entry.state === 'live') this.#driver.leaseClock.renew(entry.leaseId, length);
    this.#driver.clients.progressed(clientId, heartbeat.progress);
    this.#driver.changed();
    return { leaseMs: length, round: this.#driver.roundView() };
  }

  release(clientId: string, leaseId: string, reason: ReleaseReason): void {
    const lease = this.#driver.liveLeaseOf(clientId);
    if (lease?.leaseId === leaseId) this.#driver.lost(leaseId, RELEASE_REASONS[reason]);
  }

  /**
   * The client's lease of this id, live or delivered, in the round in progress or as late work; else throws what became
   * of it.
   */
  #entry(clientId: string, leaseId: string): LeaseEntry {
    const { state } = this.#driver;
    const lease = leaseOf(state, leaseId) ?? state.merge?.leases.find((merging) => merging.leaseId === leaseId);
    const entry = lease && lease.state !== 'dropped' ? lease : (lateEntryOf(state, leaseId) ?? lease);
    if (!entry || entry.clientId !== clientId) {
      throw new ProtocolError(
        'unknown-lease',
        `The lease ${leaseId} is not one of this round's for this client; join again.`,
      );
    }
    if (entry !== lease || entry.state !== 'dropped') return entry;
    const open = state.phase === 'selecting' || state.phase === 'training';
    throw new ProtocolError(
      open ? 'lease-expired' : 'round-closed',
      `The lease is no longer valid. ${entry.reason ?? ''} Join again for the next round.`,
    );
  }

  /** Ends what a banned client does here; its upload of the round in progress is quarantined at the merge. */
  ban(clientId: string, reason: string): void {
    const { clients } = this.#driver;
    if (!clients.has(clientId)) return;
    const lease = this.#driver.liveLeaseOf(clientId);
    this.#driver.log('warning', `${this.#driver.label(clientId)} was banned: ${reason}`);
    if (lease) this.#driver.lost(lease.leaseId, `Banned: ${reason}`);
    this.#driver.dispatch({ type: 'withdraw', clientId });
    this.#driver.banned(clientId, lease?.leaseId ?? null, `Banned: ${reason}`);
  }

  unban(clientId: string): void {
    const { clients } = this.#driver;
    if (clients.has(clientId)) this.#driver.log('info', `${this.#driver.label(clientId)} may take part again.`);
  }

  nameOf(clientId: string): string | null {
    return this.#driver.clients.nameOf(clientId);
  }

  /** Whether a lease other than this one has delivered these bytes to one of the latest rounds. */
  holdsUpload(sha256: string, leaseId: string): boolean {
    return this.deliveries.holds(sha256, leaseId);
  }

  uploadBegin(clientId: string, begin: UploadBegin): Promise<{ offset: number }> {
    return this.#context.gate.pass(() => this.#uploadBegin(clientId, begin));
  }

  async #uploadBegin(clientId: string, begin: UploadBegin): Promise<{ offset: number }> {
    const known = this.deliveries.known(clientId, begin.leaseId);
    if (known) return { offset: this.deliveries.sameAs(known, begin.sha256).bytes };
    const entry = this.#entry(clientId, begin.leaseId);
    const lease = await this.#driver.leases.make(entry);
    return { offset: await this.deliveries.begin(lease, clientId, begin) };
  }

  uploadChunk(clientId: string, leaseId: string, offset: number, bytes: Uint8Array): Promise<{ offset: number }> {
    return this.#context.gate.pass(() => this.#uploadChunk(clientId, leaseId, offset, bytes));
  }

  async #uploadChunk(
    clientId: string,
    leaseId: string,
    offset: number,
    bytes: Uint8Array,
  ): Promise<{ offset: number }> {
    const known = this.deliveries.known(clientId, leaseId);
    if (known) return { offset: known.bytes };
    this.#entry(clientId, leaseId);
    return { offset: await this.deliveries.chunk(leaseId, offset, bytes) };
  }

  uploadCommit(clientId: string, leaseId: string, sha256: string): Promise<Receipt> {
    return this.#context.gate.pass(() => this.#uploadCommit(clientId, leaseId, sha256));
  }

  async #uploadCommit(clientId: string, leaseId: string, sha256: string): Promise<Receipt> {
    const known = this.deliveries.known(clientId, leaseId);
    if (known) return this.deliveries.sameAs(known, sha256);
    const entry = this.#entry(clientId, leaseId);
    const lease = await this.#driver.leases.make(entry);
    const delivery = {
      lease,
      clientId,
      name: this.#driver.clients.nameOf(clientId),
      own: entry.own,
      round: this.#driver.state.round,
    };
    return this.deliveries.commit(delivery, sha256, {
      checkOpen: () => void this.#entry(clientId, leaseId),
      accepted: (receipt, rank) => {
        this.#driver.leaseClock.end(leaseId);
        this.#driver.clients.uploaded(clientId, receipt.bytes);
        const what = lease.training.sparse ? 'of a sparse update' : `at rank ${rank}`;
        const late = lateEntryOf(this.#driver.state, leaseId) ? ' late' : '';
        this.#driver.log(
          'info',
          `${this.#driver.label(clientId)} delivered ${receipt.bytes} bytes ${what}${late}.`,
          clientId,
        );
        this.#driver.journal.event('uploaded', { clientId, leaseId, bytes: receipt.bytes, rank, sha256 });
        this.#driver.dispatch({ type: 'uploaded', leaseId });
      },
    });
  }
}
