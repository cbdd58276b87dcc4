// The second look at uploads, when a whole round's are there: an update far larger than everybody else's, or a copy of
// somebody else's, is acknowledged but not merged. Small honest cohorts differ a lot, so only the absurd is taken out.

/** An update this many times larger than the median of the others is not an honest one. */
const NORM_FACTOR = 10;
/** With fewer others there is no median to speak of. */
const LEAST_OTHERS = 2;

export interface Suspect {
  readonly leaseId: string;
  readonly sha256: string;
  /** Local steps claimed; a volunteer who finished early has moved less far. */
  readonly steps: number;
  /** Norm of the change over all matrices. */
  readonly changeNorm: number;
  /** Whether it changed a factor that the strategy keeps frozen. */
  readonly changedFrozen?: boolean;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
}

/** Which of the uploads, in the order given, are not merged, and why. The reason's first word is its kind. */
export function quarantine(uploads: readonly Suspect[]): { leaseId: string; reason: string }[] {
  const found: { leaseId: string; reason: string }[] = [];
  const first = new Map<string, string>();
  for (const { leaseId, sha256, changeNorm, changedFrozen } of uploads) {
    if (changedFrozen) {
      found.push({ leaseId, reason: 'frozen: A was changed, which this strategy leaves as it was drawn' });
      continue;
    }
    // Equal bytes without any training are only two clients of one rank that did nothing.
    if (changeNorm > 0 && first.has(sha256)) {
      found.push({ leaseId, reason: 'duplicate: the same bytes were uploaded by another volunteer of this round' });
    }
    first.set(sha256, leaseId);
  }
  const rest = uploads.filter((upload) => !found.some((bad) => bad.leaseId === upload.leaseId));
  const perStep = (upload: Suspect) => upload.changeNorm / Math.max(1, upload.steps);
  for (const upload of rest) {
    const others = rest.filter((other) => other !== upload).map(perStep);
    if (others.length < LEAST_OTHERS) continue;
    const usual = median(others);
    const ratio = perStep(upload) / usual;
    if (usual <= 0 || !(ratio > NORM_FACTOR)) continue;
    found.push({
      leaseId: upload.leaseId,
      reason: `norm: the update is ${ratio.toPrecision(3)} times as large a step as the others' median; ${NORM_FACTOR} is the limit`,
    });
  }
  return found;
}
