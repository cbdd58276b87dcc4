// How long each live lease lasts without a sign of life. Counts running time only; knows nothing of rounds.

interface Running {
  remainingMs: number;
  leaseMs: number;
}

export class LeaseClock {
  readonly #leases = new Map<string, Running>();

  /** Starts a lease's time, or starts it anew with another length. */
  start(leaseId: string, leaseMs: number): void {
    this.#leases.set(leaseId, { remainingMs: leaseMs, leaseMs });
  }

  /** A sign of life. Without `leaseMs` the lease keeps its length. */
  renew(leaseId: string, leaseMs?: number): void {
    const lease = this.#leases.get(leaseId);
    if (lease) this.start(leaseId, leaseMs ?? lease.leaseMs);
  }

  end(leaseId: string): void {
    this.#leases.delete(leaseId);
  }

  /** Lets time pass; returns the leases that ran out, with how long they had been silent. */
  elapse(ms: number): { leaseId: string; silentMs: number }[] {
    const lost: { leaseId: string; silentMs: number }[] = [];
    for (const [leaseId, lease] of this.#leases) {
      lease.remainingMs -= ms;
      if (lease.remainingMs <= 0) lost.push({ leaseId, silentMs: lease.leaseMs });
    }
    for (const { leaseId } of lost) this.#leases.delete(leaseId);
    return lost;
  }
}
