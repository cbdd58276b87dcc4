// Whether a wish to train fits the run at all. Who gets a place is the round machine's.
import { type Join, ProtocolError, type ReleaseReason, type RunSettings } from '@weft/protocol';
import type { MachineState } from '../coordinator/types.ts';

export const RELEASE_REASONS: Record<ReleaseReason, string> = {
  stopped: 'The volunteer stopped.',
  'page-closed': 'The page was closed.',
  'device-lost': 'The GPU device was lost.',
  'out-of-memory': 'The GPU ran out of memory.',
  data: 'The volunteer’s data could not be trained on.',
  'rank-changed': 'The volunteer asked for another rank.',
  failed: 'Training failed on the volunteer’s device.',
};

/** Throws the ProtocolError that says why the run cannot take this volunteer. */
export function checkJoin(join: Join, settings: RunSettings, { run, policy }: MachineState): void {
  if (run === 'completed' || run === 'stopped') {
    throw new ProtocolError('run-not-open', `The run is ${run} and takes no more volunteers.`);
  }
  const { rank } = join.proposal;
  if (!settings.ranks.includes(rank)) {
    throw new ProtocolError('rank-refused', `Rank ${rank} is not one of this run's: ${settings.ranks.join(', ')}.`);
  }
  if (join.data.kind === 'task') {
    const { task } = join.data;
    if (task === null || settings.tasks.includes(task)) return;
    throw new ProtocolError('unknown-task', `The run has no task "${task}"; it has ${settings.tasks.join(', ')}.`);
  }
  if (!settings.allowOwnFiles) {
    throw new ProtocolError('own-data-refused', 'This run takes no own files; choose one of its tasks.');
  }
  if (policy.goal < policy.ownFileMinimum) {
    throw new ProtocolError(
      'own-data-refused',
      `This run merges ${policy.goal} uploads at a time; with own files in play it takes at least ${policy.ownFileMinimum}. Choose one of its tasks.`,
    );
  }
}
