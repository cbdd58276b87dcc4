// What shows only by looking: runs that do not move, a disk that fills, an index that is away, uploads that are not finite.
// Looks from time to time; the runs tell it the rest.
import type { Logger } from 'pino';
import type { MachineState } from '../coordinator/types.ts';
import type { RunEvents } from '../runs/events.ts';
import { freeBytes as freeBytesOf } from '../store/disk-space.ts';
import type { AlertCenter } from './center.ts';

/** Refused for NaN or infinity: so many of a round's uploads, and so large a share, before it is more than one sick device. */
const LEAST_NON_FINITE = 3;
const SHARE_NON_FINITE = 0.2;

export interface WatchedRun {
  readonly runId: string;
  readonly state: Pick<MachineState, 'run' | 'round' | 'phase' | 'version' | 'remainingMs'>;
  roundView(): { readonly reason: string | null };
}

export interface WatchOptions {
  readonly runs: () => readonly WatchedRun[];
  /** Why the index is away; null while it is there. */
  readonly indexProblem: () => string | null;
  readonly dataDir: string;
  /** A run without a new phase or commit, and without a deadline that comes nearer, for so long has stalled. */
  readonly stallMs: number;
  /** Free space under which the disk is filling. */
  readonly freeBytes: number;
  readonly everyMs: number;
  readonly monotonic: () => number;
  readonly logger: Logger;
}

interface Progress {
  readonly where: string;
  /** When it came there. */
  readonly since: number;
  readonly remainingMs: number | null;
  /** When it last moved, or its deadline did. */
  readonly movedAt: number;
}

export class AlertWatch {
  readonly #center: AlertCenter;
  readonly #options: WatchOptions;
  readonly #progress = new Map<string, Progress>();
  /** Uploads of the round in progress by run. */
  readonly #uploads = new Map<string, { taken: number; nonFinite: number }>();
  #free: number | null = null;
  #timer: NodeJS.Timeout | null = null;

  constructor(center: AlertCenter, options: WatchOptions) {
    this.#center = center;
    this.#options = options;
  }

  /** Bytes an upload may still fill; null before the first look. */
  get freeBytes(): number | null {
    return this.#free;
  }

  /** Milliseconds since the run's last change of phase, round or version. */
  phaseMs(runId: string): number {
    const progress = this.#progress.get(runId);
    return progress ? this.#options.monotonic() - progress.since : 0;
  }

  start(): void {
    const look = async () => {
      await this.look();
      this.#timer = setTimeout(() => void look(), this.#options.everyMs);
      this.#timer.unref();
    };
    this.#timer = setTimeout(() => void look(), 0);
  }

  stop(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
  }

  async look(): Promise<void> {
    for (const run of this.#options.runs()) this.#lookAtRun(run);
    const problem = this.#options.indexProblem();
    this.#center.set(null, 'index-unreachable', problem);
    await this.#lookAtDisk();
  }

  #lookAtRun(watched: WatchedRun): void {
    const { runId } = watched;
    const { run, round, phase, version, remainingMs } = watched.state;
    const where = `${run} ${round} ${phase} ${version}`;
    const now = this.#options.monotonic();
    const before = this.#progress.get(runId);
    const same = before?.where === where ? before : null;
    // A phase whose deadline comes nearer ends by itself; selection's stands still until its first volunteer.
    const nearer = same?.remainingMs != null && remainingMs !== null && remainingMs < same.remainingMs;
    const since = same?.since ?? now;
    const movedAt = same && !nearer ? same.movedAt : now;
    this.#progress.set(runId, { where, since, remainingMs, movedAt });
    // No commit will come to end these, and there is nothing left to do about them.
    if (run === 'completed' || run === 'stopped') {
      for (const kind of ['abandoned-rounds', 'merge-failed', 'non-finite-uploads'] as const)
        this.#center.set(runId, kind, null);
    }
    const ms = now - since;
    const stalled = run === 'running' && now - movedAt >= this.#options.stallMs;
    const reason = stalled ? watched.roundView().reason : null;
    this.#center.set(
      runId,
      'stalled',
      stalled ? `Round ${round} has been ${phase} for ${minutes(ms)}. ${reason ?? 'Look at the log.'}` : null,
      { round, phase, seconds: Math.round(ms / 1000) },
    );
  }

  async #lookAtDisk(): Promise<void> {
    const { dataDir, freeBytes, logger } = this.#options;
    try {
      this.#free = await freeBytesOf(dataDir);
    } catch (error) {
      logger.warn({ err: error }, 'the free space of the disk cannot be read');
      return;
    }
    const standing = this.#center.active().some(({ kind }) => kind === 'disk-full');
    // A tenth more to call it over, so that a disk at the mark does not flicker.
    const low = this.#free < freeBytes * (standing ? 1.1 : 1);
    const free = this.#free;
    const text = `The disk of ${dataDir} has ${megabytes(free)} free, less than ${megabytes(freeBytes)}. Make room, or remove old runs; uploads are refused when it is full.`;
    this.#center.set(null, 'disk-full', low ? text : null, { freeBytes: free });
  }

  /** An upload of the run was refused. */
  refused(runId: string, code: string): void {
    if (code !== 'upload-non-finite') return;
    this.#count(runId).nonFinite += 1;
    this.#judge(runId);
  }

  event<T extends keyof RunEvents>(runId: string, type: T, detail: RunEvents[T]): void {
    if (type === 'uploaded') {
      this.#count(runId).taken += 1;
    } else if (type === 'committed' || type === 'abandoned') {
      // A round without too many clears it; the next is counted afresh.
      if (!this.#tooMany(this.#count(runId))) this.#center.set(runId, 'non-finite-uploads', null);
      this.#uploads.delete(runId);
      if (type === 'committed') {
        this.#center.set(runId, 'merge-failed', null);
        this.#center.set(runId, 'abandoned-rounds', null);
      }
    } else if (type === 'merge-failed') {
      const { round, reason } = detail as RunEvents['merge-failed'];
      this.#center.set(
        runId,
        'merge-failed',
        `${reason} The server’s log has the cause; the run goes on from the last version.`,
        {
          round,
        },
      );
    }
  }

  #count(runId: string): { taken: number; nonFinite: number } {
    const kept = this.#uploads.get(runId) ?? { taken: 0, nonFinite: 0 };
    this.#uploads.set(runId, kept);
    return kept;
  }

  #tooMany({ taken, nonFinite }: { taken: number; nonFinite: number }): boolean {
    return nonFinite >= LEAST_NON_FINITE && nonFinite >= SHARE_NON_FINITE * (taken + nonFinite);
  }

  #judge(runId: string): void {
    const { taken, nonFinite } = this.#count(runId);
    if (!this.#tooMany({ taken, nonFinite })) return;
    const text = `${nonFinite} of ${taken + nonFinite} uploads of this round hold NaN or infinity: training diverges. Lower the learning rate.`;
    this.#center.set(runId, 'non-finite-uploads', text, { nonFinite, uploads: taken + nonFinite });
  }
}

const megabytes = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;
const minutes = (ms: number): string =>
  ms < 120_000 ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / 60_000)} min`;
