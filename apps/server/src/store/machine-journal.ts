// Where a run's rounds stand: the machine's state as a snapshot (`state.json`) and its events since as lines (`journal.jsonl`),
// read back by playing them through the machine. Not the run's story, which is `events.jsonl`.
//
// What waits for the disk: an event's line is written before its effects are carried out, so a killed process loses none; it is
// flushed before a new phase is told, else within FLUSH_MS behind, so a machine that loses power may forget the last leases,
// whose clients then join again. Receipts, commits and abandoned rounds are files of their own, flushed before they are told.
// On a full disk nothing waits: the state goes on in memory and is written down once there is room.
import {
  closeSync,
  existsSync,
  fdatasync,
  fdatasyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import { step } from '../coordinator/machine.ts';
import { parseMachineEvent } from '../coordinator/schema.ts';
import type { MachineEvent, MachineState } from '../coordinator/types.ts';
import { messageOf, ServerError, systemCode } from '../errors.ts';
import type { CheckReport } from './check-report.ts';
import { isDiskFull, readJson, syncFolder, temporaryFor, writeDurably, writeLater } from './files.ts';

/** At most this long an event's line stays unflushed. */
const FLUSH_MS = 100;
/** Time that only passes is written this often. */
const PASSING_MS = 2_000;
/** A snapshot is made when the lines since the last one have this many bytes, or as many as the snapshot if that is more. */
const SNAPSHOT_BYTES = 1_000_000;

const lineSchema = z.object({ n: z.int().positive(), event: z.unknown() });

export class MachineJournal {
  readonly #folder: string;
  readonly #stateSchema: z.ZodType<MachineState>;
  readonly #logger: Logger;
  readonly #report: CheckReport | null;
  /** Number of the last event. */
  #sequence = 0;
  #handle: number | null = null;
  /** Bytes of whole lines in the open file. A line cut short by a full disk is written over. */
  #length = 0;
  /** Bytes of the last snapshot. */
  #snapshotBytes = 0;
  #passingMs = 0;
  /** The latest state; null before the first event. */
  #state: MachineState | null = null;
  /** Whether this process has written a snapshot that its lines continue. */
  #based = false;
  /** Counts whole snapshots, so that an older one still on its way does not replace a newer one. */
  #generation = 0;
  /** Whether the disk lacks events that only the next snapshot can bring. */
  #behind = false;
  #timer: NodeJS.Timeout | null = null;
  #isFlushing = false;
  #flushing: Promise<void> = Promise.resolve();
  #snapshotting: Promise<void> | null = null;
  /** What the snapshot in the making is written to. */
  #temporary: string | null = null;

  /** `report`: told of a half-written event; null where nobody is to be. */
  constructor(folder: string, stateSchema: z.ZodType<MachineState>, logger: Logger, report: CheckReport | null) {
    this.#report = report;
    this.#folder = folder;
    this.#stateSchema = stateSchema;
    this.#logger = logger;
  }

  get #statePath(): string {
    return join(this.#folder, 'state.json');
  }

  get #path(): string {
    return join(this.#folder, 'journal.jsonl');
  }

  /** Lines that a snapshot in the making will hold. */
  get #oldPath(): string {
    return join(this.#folder, 'journal.old.jsonl');
  }

  /**
   * The state after every event on disk; `initial` where there is none. Writes nothing. A half-written last line is left out
   * and reported. Throws ServerError 'data-dir-corrupt' that names file and line of anything else that is wrong.
   */
  load(initial: () => MachineState): MachineState {
    const snapshot = readJson(this.#statePath, z.looseObject({ sequence: z.int().nonnegative().default(0) }));
    this.#sequence = snapshot?.sequence ?? 0;
    let state = snapshot === null ? initial() : (readJson(this.#statePath, this.#stateSchema) ?? initial());
    for (const path of [this.#oldPath, this.#path]) {
      for (const { n, event } of this.#readLines(path)) {
        if (n <= this.#sequence) continue;
        if (n !== this.#sequence + 1) {
          throw corrupt(path, `event ${n} follows event ${this.#sequence}, so lines are missing.`);
        }
        state = step(state, event).state;
        this.#sequence = n;
      }
    }
    return state;
  }

  #readLines(path: string): { n: number; event: MachineEvent }[] {
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return [];
      throw error;
    }
    const lines = text.split('\n');
    const rest = lines.pop() ?? '';
    if (rest !== '') {
      const bytes = Buffer.byteLength(rest);
      const text = `${path} ends in ${bytes} bytes of a half-written event, which are left out.`;
      this.#report?.add({ kind: 'journal-cut', path, bytes, text });
    }
    return lines.map((line, i) => {
      try {
        const { n, event } = lineSchema.parse(JSON.parse(line));
        return { n, event: parseMachineEvent(event) };
      } catch (cause) {
        throw corrupt(path, `line ${i + 1} is no event: ${messageOf(cause)}`, cause);
      }
    });
  }

  /** Makes `state` the beginning of a new journal; durable when this returns. Throws ProtocolError 'storage-full'. */
  start(state: MachineState): void {
    this.#state = state;
    this.#passingMs = 0;
    const text = this.#snapshotOf(state);
    writeDurably(this.#statePath, text);
    this.#generation += 1;
    this.#snapshotBytes = text.length;
    this.#based = true;
    this.#behind = false;
    this.#closeFile();
    if (this.#temporary !== null) rmSync(this.#temporary, { force: true });
    rmSync(this.#oldPath, { force: true });
    rmSync(this.#path, { force: true });
  }

  /** Time passed and did nothing else but that; `state` is the one after it. */
  pass(ms: number, state: MachineState): void {
    this.#state = state;
    this.#passingMs += ms;
    if (this.#passingMs < PASSING_MS) return;
    if (this.#behind || !this.#based) this.#catchUp();
    else this.#writePassing();
  }

  /** An event that led to `state`. With `barrier` it is flushed when this returns, and the journal is started anew behind. */
  append(event: MachineEvent, state: MachineState, { barrier }: { barrier: boolean }): void {
    this.#state = state;
    // The lines so far name whoever is to be forgotten.
    if (!this.#based || this.#behind || event.type === 'forgotten') {
      this.#sequence += 1;
      this.#catchUp();
      return;
    }
    this.#writePassing();
    this.#writeLine(event);
    if (this.#behind) return;
    if (barrier && this.#handle !== null) fdatasyncSync(this.#handle);
    else this.#flushSoon();
    if (barrier || this.#length > Math.max(SNAPSHOT_BYTES, this.#snapshotBytes)) this.#snapshotLater();
  }

  /** Whether the latest events are only in memory, for want of room on the disk. */
  get behind(): boolean {
    return this.#behind;
  }

  /** Writes the latest state down and ends. */
  async close(): Promise<void> {
    if (this.#timer) clearTimeout(this.#timer);
    await this.#flushing;
    await this.#snapshotting;
    if (this.#state) this.#catchUp();
    this.#closeFile();
  }

  #writePassing(): void {
    if (this.#passingMs === 0) return;
    const ms = this.#passingMs;
    this.#passingMs = 0;
    this.#writeLine({ type: 'elapsed', ms });
  }

  #writeLine(event: MachineEvent): void {
    this.#sequence += 1;
    if (this.#behind) return;
    const line = Buffer.from(`${JSON.stringify({ n: this.#sequence, event })}\n`);
    try {
      this.#handle ??= openSync(this.#path, 'a+');
      for (let written = 0; written < line.length; ) {
        written += writeSync(this.#handle, line, written, line.length - written);
      }
      this.#length += line.length;
    } catch (error) {
      this.#fell(error);
    }
  }

  /** The disk has no room: from here on the state is only in memory, until a whole snapshot fits. */
  #fell(error: unknown): void {
    if (!isDiskFull(error)) throw error;
    if (!this.#behind) this.#logger.error({ err: error }, 'the disk is full: where the round stands is kept in memory');
    this.#behind = true;
  }

  /** Brings everything to the disk by one snapshot, if there is room. */
  #catchUp(): void {
    if (!this.#state) return;
    const wasBehind = this.#behind;
    try {
      this.start(this.#state);
      if (wasBehind) this.#logger.info('the disk has room again: where the round stands is written down');
    } catch (error) {
      this.#fell(error);
    }
  }

  #snapshotOf(state: MachineState): string {
    return `${JSON.stringify({ sequence: this.#sequence, ...state })}\n`;
  }

  /** Flushes behind; lines that come meanwhile are flushed the next time. */
  #flushSoon(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      const handle = this.#handle;
      if (handle === null) return;
      if (this.#isFlushing) {
        this.#flushSoon();
        return;
      }
      this.#isFlushing = true;
      this.#flushing = new Promise((resolve) => {
        fdatasync(handle, (error) => {
          this.#isFlushing = false;
          if (error) this.#logger.error({ err: error }, 'the journal could not be flushed');
          resolve();
        });
      });
    }, FLUSH_MS);
  }

  /** Begins a new journal at once and writes the snapshot it starts from behind it. */
  #snapshotLater(): void {
    const state = this.#state;
    if (this.#snapshotting || !state) return;
    const text = this.#snapshotOf(state);
    // Lines left by a snapshot that failed stay where they are; what a snapshot holds is skipped when they are read.
    if (!existsSync(this.#oldPath) && this.#handle !== null) {
      fdatasyncSync(this.#handle);
      this.#closeFile();
      renameSync(this.#path, this.#oldPath);
      syncFolder(this.#folder);
    }
    const generation = this.#generation;
    this.#temporary = temporaryFor(this.#statePath);
    this.#snapshotting = writeLater(this.#statePath, this.#temporary, text, () => this.#generation === generation)
      .then((written) => {
        if (!written) return;
        this.#snapshotBytes = text.length;
        rmSync(this.#oldPath, { force: true });
      })
      .catch((error: unknown) =>
        this.#logger.error({ err: error }, 'a snapshot could not be written; the journal goes on'),
      )
      .finally(() => {
        this.#snapshotting = null;
      });
  }

  #closeFile(): void {
    const handle = this.#handle;
    this.#handle = null;
    this.#length = 0;
    if (handle === null) return;
    if (this.#isFlushing) void this.#flushing.then(() => closeSync(handle));
    else closeSync(handle);
  }
}

const corrupt = (path: string, what: string, cause?: unknown): ServerError =>
  new ServerError('data-dir-corrupt', `${path}: ${what} Restore the data folder from a backup.`, { cause });
