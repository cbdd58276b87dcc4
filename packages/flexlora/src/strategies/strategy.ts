// What a merge strategy is: how the uploads of a round become the next state of one matrix. One file a strategy; adding
// one touches its file and the list in index.ts.
import { MergeError } from '../errors.ts';
import type { MatrixReport, MatrixUpdate } from '../spectrum.ts';
import { checkUpdate, type LowRank, type Shape, type Side, type State } from '../types.ts';

/** The server's momentum on changes (FedAvgM; Hsu et al., 2019, arXiv 1909.06335): V ← β·V + Δ and M ← M + V. */
export interface Momentum {
  /** β in [0, 1); 0 is none. */
  readonly beta: number;
  /** V of the round before; null at first. */
  readonly velocity: LowRank | null;
}

export interface MatrixMerge {
  /** The state the server holds; null before the first merge. */
  readonly current: State | null;
  readonly updates: readonly MatrixUpdate[];
  /** Rank of the next state at most: {@link storedRank}. */
  readonly maxRank: number;
  /** For strategies that merge changes. */
  readonly momentum?: Momentum;
  /** What errors call the matrix. */
  readonly name?: string;
}

export interface MergedMatrix<Next extends State = State> {
  /** Clients get it by `readOutState`. */
  readonly next: Next;
  readonly report: MatrixReport;
  /** V of this round, kept at `maxRank`, and ‖V − kept‖ / ‖V‖; only with momentum. */
  readonly velocity?: { readonly value: LowRank; readonly discardedTail: number };
}

export interface Strategy<Next extends State = State> {
  readonly name: string;
  /** Whether it reads the state and the start factors of every update. */
  readonly needsStart: boolean;
  /** Whether every update must have started from the current state. */
  readonly synchronousOnly: boolean;
  /** Whether the next state is the last one and a change, which is what momentum works on. */
  readonly mergesChanges: boolean;
  /** Whether a client's change can be clipped: products can be scaled, averaged pairs of factors cannot. */
  readonly clips: boolean;
  /** Whether clients may have different ranks. */
  readonly mixedRanks: boolean;
  /** What clients train: with B alone, A must come back as it was served. */
  readonly trains: 'both' | 'B';
  /** What clients hold frozen beside it: see {@link Side}. */
  readonly side: Side;
  /** Throws MergeError naming the matrix and the update at fault. */
  mergeMatrix(merge: MatrixMerge): MergedMatrix<Next>;
}

/** The weighted shares must sum to 1 but for rounding. */
const SHARE_TOLERANCE = 1e-9;

/** Throws MergeError 'weights'. */
export function checkClipFactor(clip: number, called: string): void {
  if (!(clip > 0 && clip <= 1))
    throw new MergeError(
      'weights',
      `The change of ${called} is multiplied by ${clip}; clipping is by a factor in (0, 1].`,
    );
}

/** Throws MergeError 'weights', 'strategy' or 'rank'. */
function checkClip({ name, clips }: Strategy, { clip = 1, end, start }: MatrixUpdate, called: string): void {
  checkClipFactor(clip, called);
  if (clip === 1) return;
  if (!clips) {
    throw new MergeError(
      'strategy',
      `The change of ${called} is clipped, and ${name} averages factors, which a scaled change has none of; choose flexlora or another that merges products or changes, or no clipping.`,
    );
  }
  if (start === null)
    throw new MergeError('strategy', `Clipping the change of ${called} needs the weights it started from; give them.`);
  if (start.rank !== end.rank || start.scale !== end.scale) {
    throw new MergeError(
      'rank',
      `${called} started at rank ${start.rank} and scale ${start.scale} and ended at ${end.rank} and ${end.scale}; a clipped change needs both alike.`,
    );
  }
}

/** Shares are not negative and sum to 1. Throws MergeError 'weights'. */
export function checkShares(updates: readonly { readonly weight: number; readonly name?: string }[], name: string) {
  let total = 0;
  for (const [i, { weight, name: client }] of updates.entries()) {
    if (!(weight >= 0))
      throw new MergeError('weights', `The weight of ${client ?? `update ${i + 1}`} of ${name} is ${weight}.`);
    total += weight;
  }
  if (Math.abs(total - 1) > SHARE_TOLERANCE)
    throw new MergeError('weights', `The weights of ${name} sum to ${total} instead of 1; normalise them first.`);
}

/** What every strategy asks of its input. Throws MergeError 'weights', 'shape', 'rank', 'non-finite' or 'strategy'. */
export function checkMerge(
  strategy: Strategy,
  { current, updates, momentum, name = 'the matrix' }: MatrixMerge,
): Shape {
  const shape = current ?? updates[0]?.end;
  if (!shape || updates.length === 0) throw new MergeError('weights', `There is no update of ${name} to merge.`);
  checkShares(updates, name);
  for (const [i, update] of updates.entries()) {
    const called = `${update.name ?? `update ${i + 1}`} of ${name}`;
    checkUpdate(update.end, shape, called);
    checkClip(strategy, update, called);
    if (update.start) checkUpdate(update.start, shape, `${called}, start weights`);
    else if (strategy.needsStart) {
      throw new MergeError(
        'strategy',
        `Strategy ${strategy.name} needs the start weights of ${called}; give them or choose flexlora.`,
      );
    }
  }
  if (current) checkUpdate(current, shape, `the state of ${name}`);
  if (momentum && momentum.beta !== 0) {
    const { beta, velocity } = momentum;
    if (!(beta > 0 && beta < 1)) throw new MergeError('strategy', `Server momentum is ${beta}; it must lie in [0, 1).`);
    if (!strategy.mergesChanges) {
      throw new MergeError(
        'strategy',
        `Server momentum works on changes, and ${strategy.name} does not merge changes; choose flexlora-carry, flexlora-frozen-tail or flora, or no momentum.`,
      );
    }
    if (velocity) checkUpdate(velocity, shape, `the momentum of ${name}`);
  }
  return { out: shape.out, in: shape.in };
}
