// The bytes of uploads go a set time after their round has ended, merged, quarantined or not; hash, size and sidecar stay for
// good. A note a round says that it was done, so that nobody misses them.
import { rmSync, statSync } from 'node:fs';
import { setImmediate as breathe } from 'node:timers/promises';
import { systemCode } from '../errors.ts';
import type { BlobFolder } from './blobs.ts';
import type { RunStore, UploadRecord } from './run-store.ts';

/** Sidecars read before other work gets a turn. */
const READ_AT_ONCE = 50;

/** A run as far as its uploads go. */
export interface SweptRun {
  readonly store: RunStore;
  /** When a round ended, as milliseconds of the wall clock; null while it has not. */
  endedAt(round: number): number | null;
  /** Whether the run may still merge what this lease delivered. */
  isNeeded(leaseId: string): boolean;
}

export interface Swept {
  readonly rounds: number;
  readonly uploads: number;
  readonly bytes: number;
}

async function* sidecars(store: RunStore, round: number): AsyncGenerator<UploadRecord> {
  let read = 0;
  for (const leaseId of store.uploadLeases(round)) {
    const record = store.readUpload(round, leaseId);
    if (record) yield record;
    read += 1;
    if (read % READ_AT_ONCE === 0) await breathe();
  }
}

/**
 * Removes the bytes of uploads whose round ended more than `retentionMs` before `now`. With `dryRun` it only counts. Bytes that
 * an open round has as well, or that came again lately, are left.
 */
export async function sweepUploads(
  runs: readonly SweptRun[],
  uploads: BlobFolder,
  options: { readonly retentionMs: number; readonly now: number; readonly dryRun?: boolean },
): Promise<Swept> {
  const expiredBy = options.now - options.retentionMs;
  const isOver = (run: SweptRun, round: number) => (run.endedAt(round) ?? Number.POSITIVE_INFINITY) <= expiredBy;
  const due = runs.flatMap((run) =>
    run.store
      .uploadRounds()
      .filter((round) => isOver(run, round) && !run.store.isSwept(round))
      .map((round) => ({ run, round })),
  );
  if (due.length === 0) return { rounds: 0, uploads: 0, bytes: 0 };
  const needed = new Set<string>();
  for (const run of runs) {
    for (const round of run.store.uploadRounds().filter((each) => run.endedAt(each) === null)) {
      for await (const { receipt } of sidecars(run.store, round)) needed.add(receipt.sha256);
    }
  }
  let total = { rounds: 0, uploads: 0, bytes: 0 };
  for (const { run, round } of due) {
    const swept = { uploads: 0, bytes: 0 };
    let whole = true;
    for await (const { receipt } of sidecars(run.store, round)) {
      if (run.isNeeded(receipt.leaseId)) whole = false;
      if (run.isNeeded(receipt.leaseId) || needed.has(receipt.sha256)) continue;
      const bytes = remove(uploads.path(receipt.sha256), expiredBy, options.dryRun === true);
      if (bytes === null) continue;
      swept.uploads += 1;
      swept.bytes += bytes;
    }
    if (!whole) continue;
    if (!options.dryRun) run.store.writeSwept(round, { at: new Date(options.now).toISOString(), ...swept });
    total = { rounds: total.rounds + 1, uploads: total.uploads + swept.uploads, bytes: total.bytes + swept.bytes };
  }
  return total;
}

/** Size of what was removed; null when it is gone already or came again lately. */
function remove(path: string, expiredBy: number, dryRun: boolean): number | null {
  try {
    const { size, mtimeMs } = statSync(path);
    if (mtimeMs > expiredBy) return null;
    if (!dryRun) rmSync(path, { force: true });
    return size;
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null;
    throw error;
  }
}
