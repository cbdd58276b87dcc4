// What an operator should look at, derived from the records: lines for the log, null where all is well. Pure.
import type { RoundRecord } from '@weft/protocol';
import { type LossByTask, meanLoss } from './views.ts';

const ABANDONED_IN_A_ROW = 3;
/** Nats by which a mean held-out loss may rise before it is more than noise of a few test rows. */
const LOSS_RISE = 0.02;

/** Said from the third abandoned round in a row on. */
export function abandonedAlert(records: readonly RoundRecord[]): string | null {
  const lastCommit = records.findLastIndex((record) => record.outcome === 'committed');
  const inARow = records.length - 1 - lastCommit;
  if (inARow < ABANDONED_IN_A_ROW) return null;
  return `${inARow} rounds in a row were abandoned. Invite more volunteers, lower the goal and minimum, or allow more time.`;
}

/** Said when a version is worse on the held-out rows than the one before it. `base` is version 0. */
export function lossAlert(version: number, records: readonly RoundRecord[], base: LossByTask | null): string | null {
  const of = (wanted: number): number | null =>
    meanLoss(
      wanted === 0
        ? base
        : (records.find((r) => r.outcome === 'committed' && r.version === wanted)?.heldOutLoss ?? null),
    );
  const before = of(version - 1);
  const after = of(version);
  if (before === null || after === null || after - before <= LOSS_RISE) return null;
  return `Held-out loss rose from ${before.toFixed(3)} to ${after.toFixed(3)} with version ${version}. Lower the learning rate or look at the last round's contributions.`;
}
