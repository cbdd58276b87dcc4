// Removes what no run needs any more from the data folder of a stopped server: uploads whose time is over, start weights of
// past versions (made again when asked for), blobs that no file names, half-written files. Facts are never touched.
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import { initialState } from '../coordinator/machine.ts';
import { ServerError } from '../errors.ts';
import { policyOf } from '../runs/policy.ts';
import { BlobFolder } from './blobs.ts';
import { checkFormat, DATA_FORMAT, formatOf } from './format.ts';
import { lockFolder } from './lock.ts';
import { type SweptRun, sweepUploads } from './retention.ts';
import { RunStore } from './run-store.ts';

export interface Freed {
  readonly files: number;
  readonly bytes: number;
}

export interface Pruned {
  /** Bytes of uploads whose time is over. */
  readonly uploads: Freed;
  /** Start weights of versions no round starts from any more. */
  readonly starts: Freed;
  /** Blobs that no sidecar, round or start names. */
  readonly orphans: Freed;
  readonly temporary: Freed;
}

interface OpenRun extends SweptRun {
  readonly version: number;
  readonly ended: boolean;
}

function openRun(folder: string): OpenRun | null {
  const store = new RunStore(folder);
  const definition = store.readDefinition();
  if (!definition) return null;
  const timing = { selectionGraceMs: 0, restMs: 0 };
  const journal = store.machineJournal(pino({ level: 'silent' }), null);
  const state = journal.load(() => initialState(policyOf(definition.settings, timing)));
  const ends = new Map(store.readRounds().map(({ record }) => [record.round, Date.parse(record.endedAt)]));
  const isOpen = state.phase !== 'committed' && state.phase !== 'abandoned';
  const leases = new Set(state.leases.map((lease) => lease.leaseId));
  return {
    store,
    version: state.version,
    ended: state.run === 'completed' || state.run === 'stopped',
    endedAt: (round) => (isOpen && round === state.round ? null : (ends.get(round) ?? null)),
    isNeeded: (leaseId) => isOpen && leases.has(leaseId),
  };
}

/** Counts files and bytes, and removes unless it is a dry run. */
class Remover {
  files = 0;
  bytes = 0;
  readonly #dryRun: boolean;

  constructor(dryRun: boolean) {
    this.#dryRun = dryRun;
  }

  remove(path: string): void {
    this.files += 1;
    this.bytes += statSync(path).size;
    if (!this.#dryRun) rmSync(path, { force: true });
  }

  get freed(): Freed {
    return { files: this.files, bytes: this.bytes };
  }
}

/**
 * Prunes a data folder that no server uses. Throws ServerError 'data-dir-missing', 'data-dir-locked', 'data-dir-older' or
 * 'data-dir-newer'. `retentionMs` is counted from the end of an upload's round.
 */
export async function prune(
  dataDir: string,
  options: { readonly retentionMs: number; readonly now: Date; readonly dryRun: boolean },
): Promise<Pruned> {
  const format = formatOf(dataDir);
  if (format === null)
    throw new ServerError('data-dir-missing', `${dataDir} is no data folder of Weft. Name it with --data-dir.`);
  checkFormat(dataDir, format);
  if (format < DATA_FORMAT) {
    throw new ServerError(
      'data-dir-older',
      `${dataDir} has data format ${format}; start its server once with this version, which brings it to ${DATA_FORMAT}.`,
    );
  }
  const unlock = lockFolder(dataDir);
  try {
    const folder = join(dataDir, 'runs');
    const names = existsSync(folder) ? readdirSync(folder) : [];
    const runs = names.map((name) => openRun(join(folder, name))).filter((run) => run !== null);
    const uploads = new BlobFolder(join(dataDir, 'uploads'));
    const { retentionMs, now, dryRun } = options;
    const swept = await sweepUploads(runs, uploads, { retentionMs, now: now.getTime(), dryRun });
    return {
      uploads: { files: swept.uploads, bytes: swept.bytes },
      starts: pruneStarts(runs, new BlobFolder(join(dataDir, 'blobs')), dryRun),
      orphans: pruneOrphans(dataDir, runs, dryRun),
      temporary: pruneTemporary(dataDir, dryRun),
    };
  } finally {
    unlock();
  }
}

function startsOfOpenUploads({ store, isNeeded }: OpenRun): string[] {
  return store.uploadRounds().flatMap((round) =>
    store
      .uploadLeases(round)
      .filter((leaseId) => isNeeded(leaseId))
      .flatMap((leaseId) => store.readUpload(round, leaseId)?.begin.startHash ?? []),
  );
}

/** Those of the version the next round starts from stay, and so do those somebody may be training from. */
function pruneStarts(runs: readonly OpenRun[], blobs: BlobFolder, dryRun: boolean): Freed {
  const starts = runs.flatMap((run) => run.store.readStarts().map((start) => ({ run, ...start })));
  // What an upload still to be merged was trained from is needed for its merge, of whatever version it is.
  const trainedFrom = new Set(runs.flatMap(startsOfOpenUploads));
  const isNeeded = ({ run, version, sha256 }: (typeof starts)[number]) =>
    trainedFrom.has(sha256) || (!run.ended && version >= run.version);
  const needed = new Set(starts.filter(isNeeded).map(({ sha256 }) => sha256));
  const remover = new Remover(dryRun);
  const removed = new Set<string>();
  for (const start of starts.filter((each) => !isNeeded(each))) {
    if (!dryRun) start.run.store.removeStart(start.version, start.key);
    if (needed.has(start.sha256) || removed.has(start.sha256) || !blobs.has(start.sha256)) continue;
    removed.add(start.sha256);
    remover.remove(blobs.path(start.sha256));
  }
  return remover.freed;
}

/** Left by a kill between a blob and the file that names it, or by a merge that came too late. */
function pruneOrphans(dataDir: string, runs: readonly OpenRun[], dryRun: boolean): Freed {
  const named = {
    uploads: new Set<string>(),
    globals: new Set<string>(),
    blobs: new Set(runs.flatMap((run) => run.store.readStarts().map(({ sha256 }) => sha256))),
  };
  for (const { store } of runs) {
    for (const { global } of store.readRounds()) if (global) named.globals.add(global.sha256);
    for (const round of store.uploadRounds()) {
      for (const { receipt } of store.readUploads(round)) named.uploads.add(receipt.sha256);
    }
  }
  // In a dry run the starts that would go are still named, so that nothing is counted twice.
  const remover = new Remover(dryRun);
  for (const [folder, hashes] of Object.entries(named)) {
    for (const path of blobsIn(join(dataDir, folder))) {
      if (/^[0-9a-f]{64}$/.test(path.name) && !hashes.has(path.name)) remover.remove(path.path);
    }
  }
  return remover.freed;
}

function* blobsIn(folder: string): Generator<{ name: string; path: string }> {
  if (!existsSync(folder)) return;
  for (const two of readdirSync(folder)) {
    for (const name of readdirSync(join(folder, two))) yield { name, path: join(folder, two, name) };
  }
}

function pruneTemporary(dataDir: string, dryRun: boolean): Freed {
  const remover = new Remover(dryRun);
  const visit = (folder: string): void => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) {
        if (entry.name !== 'database') visit(path);
      } else if (/\.[0-9a-f]{8}\.tmp$/.test(entry.name)) remover.remove(path);
    }
  };
  visit(dataDir);
  return remover.freed;
}
