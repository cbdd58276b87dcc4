// Timing: medians of interleaved samples, so that whatever else the machine does falls on all alike. First runs, compile and
// warm-up included, are kept apart. Every measurement has a time budget of its own.

/** What is measured: made and warmed up by `prepare`, then run. */
export interface Contender {
  readonly name: string;
  /** Makes what is to be run; its time and the first run's are reported as `firstMs`. */
  prepare(): Promise<{ run(times: number): Promise<void>; destroy(): void }>;
  /** Reason not to run at all, such as a run that is known to take longer than the budget. */
  readonly leftOut?: string | undefined;
}

export interface Timing {
  readonly name: string;
  /** Milliseconds of one run; null where nothing could be measured, `error` then says why. */
  readonly median: number | null;
  readonly low: number | null;
  readonly high: number | null;
  readonly samples: number;
  /** Making and first run, compilation included. */
  readonly firstMs: number | null;
  readonly error?: string;
}

export interface Effort {
  /** Samples of each contender. */
  readonly rounds: number;
  /** A sample repeats until it takes about this long. */
  readonly sampleMs: number;
  /** No sample begins this long after the first runs, but each contender gets one. */
  readonly budgetMs: number;
}

/** Repetitions of a sample at most. */
const MOST_REPEATS = 256;

export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('Nothing has no median.');
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** The message of whatever was thrown, in one line. */
export const messageOf = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).replace(/\s+/g, ' ').trim().slice(0, 300);

interface Running {
  readonly contender: Contender;
  run(times: number): Promise<void>;
  destroy(): void;
  repeats: number;
  readonly firstMs: number;
  readonly samples: number[];
  error?: string;
}

/** Contenders in the order they are sampled in: the first before each other, as in ours, peer, ours, peer. */
function turns<T>([first, ...others]: readonly T[]): T[] {
  if (first === undefined) return [];
  return others.length === 0 ? [first] : others.flatMap((other) => [first, other]);
}

const clock = (): number => performance.now();

async function timed(work: () => Promise<void>): Promise<number> {
  const began = clock();
  await work();
  return clock() - began;
}

/** Samples contenders in turns. One that fails is reported with its error and stops nobody else. */
export async function interleaved(contenders: readonly Contender[], effort: Effort): Promise<Timing[]> {
  const running: Running[] = [];
  const failed = new Map<Contender, string>();
  try {
    for (const contender of contenders) {
      if (contender.leftOut !== undefined) {
        failed.set(contender, contender.leftOut);
        continue;
      }
      try {
        const start = clock();
        const made = await contender.prepare();
        const entry = { contender, repeats: 1, firstMs: 0, samples: [], run: made.run, destroy: made.destroy };
        running.push(entry);
        await made.run(1);
        Object.assign(entry, { firstMs: clock() - start });
      } catch (error) {
        failed.set(contender, messageOf(error));
      }
    }
    const began = clock();
    const late = () => clock() - began > effort.budgetMs;
    const alive = () => running.filter(({ contender }) => !failed.has(contender));
    const attempt = async (entry: Running, work: () => Promise<void>) => {
      try {
        await work();
      } catch (error) {
        failed.set(entry.contender, messageOf(error));
      }
    };
    for (const entry of alive()) {
      await attempt(entry, async () => {
        const once = await timed(() => entry.run(1));
        // A sample of one; else how many make one, told by a few, among which the wait for the GPU is shared out.
        if (once >= effort.sampleMs) entry.samples.push(once);
        else {
          const few = Math.min(8, Math.ceil(effort.sampleMs / once));
          const each = (await timed(() => entry.run(few))) / few;
          entry.repeats = Math.max(1, Math.min(MOST_REPEATS, Math.ceil(effort.sampleMs / each)));
        }
      });
    }
    for (let round = 0; round < effort.rounds; round += 1) {
      for (const entry of turns(alive())) {
        if (failed.has(entry.contender)) continue;
        if (entry.samples.length > 0 && late()) continue;
        await attempt(entry, async () => {
          entry.samples.push((await timed(() => entry.run(entry.repeats))) / entry.repeats);
        });
      }
    }
    return contenders.map((contender) => {
      const error = failed.get(contender);
      const entry = running.find((each) => each.contender === contender);
      const { name } = contender;
      if (error !== undefined || !entry)
        return { name, median: null, low: null, high: null, samples: 0, firstMs: null, error: error ?? 'never ran' };
      const { samples, firstMs } = entry;
      const [low, high] = [Math.min(...samples), Math.max(...samples)];
      return { name, median: median(samples), low, high, samples: samples.length, firstMs };
    });
  } finally {
    for (const { destroy } of running) destroy();
  }
}
