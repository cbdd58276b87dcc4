// Copies of a data folder, taken while its server runs or stands: every file with its hash, so that a copy proves itself whole.
// The index and uploads on their way are left out; the one is made again, the others are sent again.
//
// The order keeps a copy of a live folder whole: where the rounds stand first, then the facts up to that round, then the blobs
// those facts name. Facts newer than the state are what any kill leaves, and a start takes them up.
import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { sha256Schema } from '@weft/protocol';
import { pino } from 'pino';
import { z } from 'zod';
import { initialState } from '../coordinator/machine.ts';
import type { MachineState } from '../coordinator/types.ts';
import { ServerError, systemCode } from '../errors.ts';
import { policyOf } from '../runs/policy.ts';
import { readJson, syncFolder, writeDurably, writeJson } from './files.ts';
import { checkFormat, DATA_FORMAT, formatOf } from './format.ts';
import { RunStore } from './run-store.ts';

const BACKUP_FILE = 'backup.json';
/** A live folder's journal may be started anew between the reading of its parts; then it is read again. */
const READ_ATTEMPTS = 20;

const backupSchema = z.object({
  format: z.int().positive(),
  madeAt: z.iso.datetime(),
  /** By path inside the data folder. */
  files: z.record(z.string(), z.object({ sha256: sha256Schema, bytes: z.int().nonnegative() })),
});

export interface Copied {
  readonly files: number;
  readonly bytes: number;
  readonly runs: readonly string[];
  readonly madeAt: string;
  /** Blobs of the data folder that did not have their hash and were left out. */
  readonly damaged: readonly string[];
}

/** Left out of a backup: of one process, made again, or sent again. */
const LEFT_OUT = new Set([
  'lock',
  'database',
  'database.pid',
  // A copy beside its original must not share its schema.
  'index.json',
  'merging',
  'partial',
  'runs',
  'uploads',
  'globals',
  'blobs',
  'report.json',
  'format.json',
]);

const silent = pino({ level: 'silent' });

/** Files below a folder, as paths inside it; none where there is no folder. */
function* filesBelow(folder: string, inside = ''): Generator<string> {
  if (!existsSync(join(folder, inside))) return;
  for (const entry of readdirSync(join(folder, inside), { withFileTypes: true })) {
    const path = join(inside, entry.name);
    if (entry.isDirectory()) yield* filesBelow(folder, path);
    else if (entry.isFile() && !entry.name.endsWith('.tmp')) yield path;
  }
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

class BackupWriter {
  readonly #from: string;
  readonly #to: string;
  readonly #files: Record<string, { sha256: string; bytes: number }> = {};
  bytes = 0;
  /** Blobs that do not have the hash they are named by, left out. */
  readonly damaged: string[] = [];

  constructor(from: string, to: string) {
    this.#from = from;
    this.#to = to;
  }

  /** Readable by its owner alone: keys are among the files. */
  write(path: string, content: Uint8Array): void {
    writeDurably(join(this.#to, path), content, { mode: 0o600 });
    this.#files[path] = { sha256: sha256(content), bytes: content.length };
    this.bytes += content.length;
  }

  /** Copies one file; false when it is not there (any more). */
  copy(path: string): boolean {
    let content: Uint8Array;
    try {
      content = readFileSync(join(this.#from, path));
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return false;
      throw error;
    }
    // A log that is being written may end in half a line.
    this.write(path, path.endsWith('.jsonl') ? content.subarray(0, content.lastIndexOf(10) + 1) : content);
    return true;
  }

  /** Copies a blob of this hash, once; false when it is not there, or is not what its name says. */
  copyBlob(folder: string, hash: string): boolean {
    const path = join(folder, hash.slice(0, 2), hash);
    if (path in this.#files) return true;
    if (!this.copy(path)) return false;
    if (this.#files[path]?.sha256 === hash) return true;
    rmSync(join(this.#to, path), { force: true });
    this.bytes -= this.#files[path]?.bytes ?? 0;
    delete this.#files[path];
    this.damaged.push(path);
    return false;
  }

  finish(madeAt: string): number {
    writeJson(join(this.#to, BACKUP_FILE), { format: DATA_FORMAT, madeAt, files: this.#files });
    return Object.keys(this.#files).length;
  }
}

/** Where a run stands, read beside a server that may be writing. */
function readState(store: RunStore, definition: NonNullable<ReturnType<RunStore['readDefinition']>>): MachineState {
  for (let attempt = 1; ; attempt++) {
    try {
      const timing = { selectionGraceMs: 0, restMs: 0 };
      return store.machineJournal(silent, null).load(() => initialState(policyOf(definition.settings, timing)));
    } catch (error) {
      if (attempt === READ_ATTEMPTS) throw error;
    }
  }
}

/** Whether a file of a run belongs into a copy that stands at `state`. */
function isUpTo(state: MachineState, path: string): boolean {
  if (/^(state\.json|journal(\.old)?\.jsonl)$/.test(path)) return false;
  const [, kind, number] = /^(uploads|rounds|swept|evaluations|starts)\/(\d+)/.exec(path) ?? [];
  if (kind === undefined) return true;
  return Number(number) <= (kind === 'evaluations' || kind === 'starts' ? state.version : state.round);
}

function backupRun(runs: string, runId: string, writer: BackupWriter): void {
  const store = new RunStore(join(runs, runId));
  const definition = store.readDefinition();
  // Without it the run was never acknowledged.
  if (!definition) return;
  const state = readState(store, definition);
  writer.write(
    join('runs', runId, 'state.json'),
    new TextEncoder().encode(`${JSON.stringify({ sequence: 0, ...state })}\n`),
  );
  for (const path of filesBelow(join(runs, runId))) if (isUpTo(state, path)) writer.copy(join('runs', runId, path));
  for (const { global, record } of store.readRounds()) {
    if (record.round > state.round || global === null) continue;
    if (!writer.copyBlob('globals', global.sha256)) {
      throw new ServerError(
        'data-dir-corrupt',
        `The committed state of version ${record.version} of run ${runId}, globals/…/${global.sha256}, is lost or damaged. Restore an older backup.`,
      );
    }
  }
  for (const { sha256: hash } of store.readStarts()) writer.copyBlob('blobs', hash);
  for (const round of store.uploadRounds().filter((each) => each <= state.round)) {
    // Bytes whose time is over are gone, and a start that misses others says so by name.
    for (const { receipt } of store.readUploads(round)) writer.copyBlob('uploads', receipt.sha256);
  }
}

function requireEmpty(folder: string): void {
  if (!existsSync(folder) || readdirSync(folder).length === 0) return;
  throw new ServerError(
    'folder-not-empty',
    `${folder} is not empty. Choose a new folder, so that nothing is written over.`,
  );
}

/**
 * Copies `dataDir` into the new folder `to`; its server may run meanwhile. Throws ServerError 'data-dir-missing',
 * 'data-dir-newer', 'data-dir-older', 'folder-not-empty' or 'data-dir-corrupt'.
 */
export function backup(dataDir: string, to: string, now: Date): Copied {
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
  requireEmpty(to);
  const temporary = `${to}.incomplete`;
  makePrivate(temporary);
  const writer = new BackupWriter(dataDir, temporary);
  const runs = join(dataDir, 'runs');
  const runIds = existsSync(runs) ? readdirSync(runs).sort() : [];
  for (const runId of runIds) backupRun(runs, runId, writer);
  for (const name of readdirSync(dataDir).sort()) {
    if (LEFT_OUT.has(name) || name.endsWith('.tmp')) continue;
    // What other rooms keep: the admin's token and their own folders.
    if (statSync(join(dataDir, name)).isDirectory()) {
      for (const path of filesBelow(dataDir, name)) writer.copy(path);
    } else writer.copy(name);
  }
  writer.write('format.json', new TextEncoder().encode(`${JSON.stringify({ format: DATA_FORMAT })}\n`));
  const madeAt = now.toISOString();
  const files = writer.finish(madeAt);
  place(temporary, to);
  return { files, bytes: writer.bytes, runs: runIds, madeAt, damaged: writer.damaged };
}

/** A new folder that its owner alone may enter: keys and raw uploads are copied into it. */
function makePrivate(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true, mode: 0o700 });
}

/** Gives a finished folder its name. */
function place(temporary: string, to: string): void {
  rmSync(to, { recursive: true, force: true });
  renameSync(temporary, to);
  syncFolder(dirname(to));
}

/**
 * Makes the new data folder `dataDir` from a backup, every file checked against its hash. Throws ServerError 'backup-missing',
 * 'backup-damaged', 'data-dir-newer' or 'folder-not-empty'; then `dataDir` is as it was.
 */
export function restore(from: string, dataDir: string): Copied {
  const made = readJson(join(from, BACKUP_FILE), backupSchema);
  if (!made) {
    throw new ServerError(
      'backup-missing',
      `${from} has no ${BACKUP_FILE}, so it is no backup, or one that was not finished.`,
    );
  }
  checkFormat(from, made.format);
  requireEmpty(dataDir);
  const temporary = `${dataDir}.incomplete`;
  makePrivate(temporary);
  let bytes = 0;
  const runs = new Set<string>();
  for (const [path, expected] of Object.entries(made.files)) {
    const target = join(temporary, path);
    mkdirSync(dirname(target), { recursive: true });
    copyChecked(join(from, path), target, expected.sha256);
    bytes += expected.bytes;
    const [top, runId] = path.split('/');
    if (top === 'runs' && runId !== undefined) runs.add(runId);
  }
  place(temporary, dataDir);
  return { files: Object.keys(made.files).length, bytes, runs: [...runs].sort(), madeAt: made.madeAt, damaged: [] };
}

function copyChecked(from: string, to: string, expected: string): void {
  try {
    copyFileSync(from, to);
    // A copy that was carried elsewhere may have come back with permissions of another machine.
    chmodSync(to, 0o600);
  } catch (cause) {
    if (systemCode(cause) !== 'ENOENT') throw cause;
    throw new ServerError('backup-damaged', `${from} is missing from the backup. Use another backup.`, { cause });
  }
  if (sha256(readFileSync(to)) !== expected) {
    throw new ServerError(
      'backup-damaged',
      `${from} does not have the hash it had when the backup was made. Use another backup.`,
    );
  }
  const handle = openSync(to, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}
