// The ended rounds of a run: written as they end, kept in memory for the dashboard.
import type { BlobReference, Contribution, RoundRecord } from '@weft/protocol';
import type { RoundFile, RunStore } from '../store/run-store.ts';
import type { LossByTask } from './views.ts';

export class Archive {
  readonly #store: RunStore;
  #files: RoundFile[];

  constructor(store: RunStore) {
    this.#store = store;
    this.#files = store.readRounds();
  }

  files(): readonly RoundFile[] {
    return this.#files;
  }

  /** How a round ended, or undefined. */
  of(round: number): RoundFile | undefined {
    return this.#files.find((file) => file.record.round === round);
  }

  /** The committed state of a version; null for version 0 and for versions there are not. */
  globalOf(version: number): BlobReference | null {
    return this.#files.find((file) => file.global !== null && file.record.version === version)?.global ?? null;
  }

  /** Records with the held-out losses measured so far, oldest first. */
  records(lossOf: (version: number) => LossByTask | null): RoundRecord[] {
    return this.#files.map(({ record }) => {
      const measured = record.outcome === 'committed' ? lossOf(record.version) : null;
      return { ...record, heldOutLoss: measured === null ? null : { ...measured } };
    });
  }

  /** Writes the end of a round; durable when this returns. */
  add(file: RoundFile): void {
    this.#store.writeRound(file);
    const others = this.#files.filter((kept) => kept.record.round !== file.record.round);
    this.#files = [...others, file].sort((a, b) => a.record.round - b.record.round);
  }

  /** Writes an abandoned round. `version` is the one the run goes on from. */
  abandon(round: number, version: number, reason: string, at: Date): RoundRecord {
    const record: RoundRecord = {
      round,
      version,
      outcome: 'abandoned',
      reason,
      endedAt: at.toISOString(),
      mergeMs: 0,
      contributions: [],
      trainLoss: null,
      heldOutLoss: null,
      spectra: [],
      tree: null,
    };
    this.add({ record, global: null, settled: null, leaves: [] });
    return record;
  }

  /** Adds late work that no merge will settle to the record of the last round; returns it, or null where there is none. */
  credit(contributions: readonly Contribution[]): RoundRecord | null {
    const last = this.#files.at(-1);
    if (!last || contributions.length === 0) return null;
    const record = { ...last.record, contributions: [...last.record.contributions, ...contributions] };
    this.add({ ...last, record });
    return record;
  }
}
