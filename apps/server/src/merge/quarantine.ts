// The second look at uploads, when a whole round's are there: an update far larger than everybody else's, or a copy of
// somebody else's, or where the run asks for it one that pulls against the cohort, is acknowledged but not merged. Small
// honest cohorts differ a lot, so only the absurd is taken out.
import { findOpposed, median } from '@weft/flexlora';

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

/**
 * Which of the uploads pull against the others, and why, at `strength` of the run's `rejectOpposed`. Of uploads that passed
 * {@link quarantine}; `cosine`: of the change with the sum of all others, each at norm 1; null for no change.
 */
export function quarantineOpposed(
  uploads: readonly { readonly leaseId: string; readonly cosine: number | null }[],
  strength: number,
): { leaseId: string; reason: string }[] {
  const { agreement, limit, opposed } = findOpposed(
    uploads.map(({ cosine }) => cosine),
    strength,
  );
  return uploads.flatMap(({ leaseId, cosine }, i) =>
    opposed[i] && cosine !== null
      ? [
          {
            leaseId,
            reason: `similarity: the update pulls against the others: cosine ${cosine.toFixed(3)} with their mean direction, where those who agree have ${agreement.toFixed(3)} and ${limit.toFixed(3)} is the limit`,
          },
        ]
      : [],
  );
}
