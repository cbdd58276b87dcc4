// A run's events on disk, a JSON document a line. For looking back, not for going on: nothing is read from it at start, so it
// is not flushed, and it is bounded: two files of 64 MiB at most, the older given up.
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { writeDurably } from './files.ts';

const MOST_BYTES = 64 * 1024 * 1024;

export class EventLog {
  readonly #path: string;
  readonly #older: string;
  readonly #mostBytes: number;
  #handle: number | null = null;
  #bytes = 0;

  constructor(folder: string, mostBytes = MOST_BYTES) {
    this.#path = join(folder, 'events.jsonl');
    this.#older = join(folder, 'events.1.jsonl');
    this.#mostBytes = mostBytes;
  }

  append(event: Record<string, unknown>): void {
    const line = Buffer.from(`${JSON.stringify(event)}\n`);
    if (this.#handle !== null && this.#bytes + line.length > this.#mostBytes) {
      this.close();
      renameSync(this.#path, this.#older);
    }
    const handle = this.#handle ?? this.#open();
    const written = writeSync(handle, line);
    this.#bytes += written;
    if (written === line.length) return;
    // A full disk takes half a line: nobody gets to read it.
    this.close();
    throw new Error(`${this.#path} took ${written} of ${line.length} bytes of an event; the disk is full.`);
  }

  #open(): number {
    const handle = openSync(this.#path, 'a+');
    this.#bytes = fstatSync(handle).size;
    const whole = endOfLastLine(handle, this.#bytes);
    // A kill in the middle of a line leaves half an event, which the next one must not be glued to.
    if (whole < this.#bytes) ftruncateSync(handle, whole);
    this.#bytes = whole;
    this.#handle = handle;
    return handle;
  }

  /** Replaces the lines for which `change` gives others; durable when this returns. */
  rewrite(change: (line: string) => string): void {
    this.close();
    for (const path of this.paths()) {
      const before = readFileSync(path, 'utf8');
      const after = before
        .split('\n')
        .map((line) => (line === '' ? line : change(line)))
        .join('\n');
      if (after !== before) writeDurably(path, after);
    }
  }

  /** The files there are, older first. */
  paths(): string[] {
    return [this.#older, this.#path].filter((path) => existsSync(path));
  }

  close(): void {
    if (this.#handle !== null) closeSync(this.#handle);
    this.#handle = null;
  }
}

/** Bytes up to and with the last line's end. */
function endOfLastLine(handle: number, size: number): number {
  const window = Buffer.alloc(64 * 1024);
  for (let end = size; end > 0; ) {
    const begin = Math.max(0, end - window.length);
    const length = readSync(handle, window, 0, end - begin, begin);
    const at = window.subarray(0, length).lastIndexOf(0x0a);
    if (at >= 0) return begin + at + 1;
    end = begin;
  }
  return 0;
}
