// Progress of work that is counted in bytes: a bar on a terminal, a line every few seconds elsewhere. On stderr.
import { MultiBar, Presets } from 'cli-progress';
import { formatBytes, type Io } from './command.ts';

export interface Progress {
  /** More bytes are done; fewer when some must be done again. */
  advance(bytes: number): void;
  /** A line that stays. */
  note(text: string): void;
  /** Takes the bar away. */
  stop(): void;
}

const LINE_EVERY_MS = 10_000;

/** Progress of `total` bytes. `verb` is what happens to them: "fetched", "written". */
export function byteProgress(io: Io, total: number, verb: string): Progress {
  return process.stderr.isTTY === true ? bar(total, verb) : lines(io, total, verb);
}

const state = (done: number, total: number, began: number) => ({
  done: formatBytes(done),
  all: formatBytes(total),
  speed: `${formatBytes(Math.round((done / Math.max(performance.now() - began, 1)) * 1000))}/s`,
});

function bar(total: number, verb: string): Progress {
  const bars = new MultiBar(
    {
      stream: process.stderr,
      format: `{bar} {percentage} %  {done} of {all} ${verb}  {speed}  {eta_formatted} left`,
      barsize: 24,
      clearOnComplete: true,
      hideCursor: true,
    },
    Presets.shades_classic,
  );
  const began = performance.now();
  let done = 0;
  const one = bars.create(total, 0, state(0, total, began));
  return {
    advance(bytes) {
      done += bytes;
      one.update(done, state(done, total, began));
    },
    note(text) {
      bars.log(`${text}\n`);
    },
    stop() {
      // Lines noted since the last redraw would be lost.
      bars.update();
      one.stop();
      bars.stop();
    },
  };
}

function lines(io: Io, total: number, verb: string): Progress {
  const began = performance.now();
  let done = 0;
  let saidAt = began;
  return {
    advance(bytes) {
      done += bytes;
      if (performance.now() - saidAt < LINE_EVERY_MS) return;
      saidAt = performance.now();
      const { done: now, all, speed } = state(done, total, began);
      io.note(`${now} of ${all} ${verb} (${speed})`);
    },
    note(text) {
      io.note(text);
    },
    stop() {},
  };
}
