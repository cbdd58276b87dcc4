// How the work of a plan is portioned, so that whoever else uses the GPU gets a turn: dispatches into pieces, and runs into
// submits. Numbers only; plan.ts acts on them.

/** WebGPU's default limit of workgroups in one dimension. */
export const MAX_WORKGROUPS = 65_535;

/** Workgroups of one piece of a folded dispatch, of which `first` come before it. */
export interface GroupPiece {
  readonly first: number;
  readonly workgroups: readonly [x: number, y: number, z: 1];
}

/**
 * Cuts x · y folded workgroups into at most `pieces` runs of about the same number. Together they are exactly the same
 * workgroups, each once: a kernel that adds to what is there must not run one twice.
 */
export function groupPieces(x: number, y: number, pieces: number): GroupPiece[] {
  const total = x * y;
  const each = Math.ceil(total / Math.max(1, Math.min(pieces, total)));
  const inRows = each > MAX_WORKGROUPS;
  const size = inRows ? Math.ceil(each / x) * x : each;
  return Array.from({ length: Math.ceil(total / size) }, (_, i) => {
    const count = Math.min(size, total - i * size);
    return { first: i * size, workgroups: inRows ? [x, count / x, 1] : [count, 1, 1] } as const;
  });
}

/** A call that takes so long, and the pieces it can be cut into at most. */
export interface CuttableCall {
  readonly milliseconds: number;
  readonly most: number;
}

/**
 * Pieces of each call so that none takes longer than `milliseconds`; where that takes more than `spare` pieces beyond one
 * for each call, the shortest limit that does not.
 */
export function piecesOf(calls: readonly CuttableCall[], milliseconds: number, spare: number): number[] {
  for (let limit = milliseconds; ; limit *= 1.25) {
    const pieces = calls.map((call) => Math.max(1, Math.min(call.most, Math.ceil(call.milliseconds / limit))));
    if (pieces.reduce((sum, count) => sum + count - 1, 0) <= spare) return pieces;
  }
}

/**
 * Ends of at most `parts` runs of items, none empty, that weigh about the same; the last end is the number of items. A run
 * ends where its weight comes closest to an equal share of what is left.
 */
export function evenParts(weights: readonly number[], parts: number): number[] {
  const ends: number[] = [];
  let left = weights.reduce((sum, weight) => sum + weight, 0);
  let begin = 0;
  let sum = 0;
  for (const [i, weight] of weights.entries()) {
    const partsLeft = parts - ends.length;
    const isFull = sum + weight / 2 > left / partsLeft;
    const isLastChance = weights.length - i < partsLeft;
    if (partsLeft > 1 && i > begin && (isFull || isLastChance)) {
      ends.push(i);
      begin = i;
      left -= sum;
      sum = 0;
    }
    sum += weight;
  }
  return [...ends, weights.length];
}
