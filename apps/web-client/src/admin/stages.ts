// What the phase bar shows, as data: the stages of a round with how far each is. A buffered run has two stages at work at once,
// since it merges one buffer while the next is filled. Pure.
import type { Phase, RoundView, RunView } from '@weft/protocol';

export interface Stage {
  readonly name: Phase;
  readonly words: string;
  readonly state: 'done' | 'now' | 'ahead';
  /** How much of the track is filled, 0 to 1; null while it works and nobody can know. */
  readonly share: number | null;
}

const SYNCHRONOUS = ['selecting', 'training', 'merging', 'committed'] as const;

/** Milliseconds that a phase may last in all; null where it has no deadline. */
function budgetOf({ settings }: RunView, phase: Phase): number | null {
  switch (phase) {
    case 'selecting':
      return settings.selectionMs;
    case 'training':
      return settings.trainingMs;
    case 'merging':
      return settings.mergingMs;
    default:
      return null;
  }
}

const clamp = (share: number): number => Math.min(1, Math.max(0, share));

/** `leftMs`: what is left of the phase by now. */
export function stagesOf(run: RunView, round: RoundView, leftMs: number | null): Stage[] {
  const budget = budgetOf(run, round.phase);
  const spent = leftMs === null || budget === null ? 0 : clamp(1 - leftMs / budget);
  if (run.settings.mode === 'buffered') return bufferedStages(run, round, spent);
  const at = (SYNCHRONOUS as readonly Phase[]).indexOf(round.phase);
  return SYNCHRONOUS.map((name, i) => {
    const state = i < at ? 'done' : i === at ? 'now' : 'ahead';
    const share = state === 'done' || (state === 'now' && name === 'committed') ? 1 : state === 'now' ? spent : 0;
    return { name, words: name, state, share };
  });
}

/** Uploads fill a buffer, not time; of a merge beside it the time left is not told. */
function bufferedStages(run: RunView, { phase, uploaded, goal, mergingRound }: RoundView, spent: number): Stage[] {
  const last = phase === 'merging';
  const merging = last || mergingRound !== null;
  return [
    {
      name: 'training',
      words: `training, ${uploaded} of ${goal} in the buffer`,
      state: phase === 'training' ? 'now' : last || phase === 'committed' ? 'done' : 'ahead',
      share: last || phase === 'committed' ? 1 : phase === 'training' ? clamp(uploaded / goal) : 0,
    },
    {
      name: 'merging',
      words: mergingRound === null ? 'merging' : `merging round ${mergingRound}`,
      state: merging ? 'now' : phase === 'committed' ? 'done' : 'ahead',
      share: last ? spent : merging ? null : phase === 'committed' ? 1 : 0,
    },
    {
      name: 'committed',
      words: `${run.version} committed`,
      state: phase === 'committed' ? 'now' : 'ahead',
      share: phase === 'committed' ? 1 : clamp(run.version / run.settings.rounds),
    },
  ];
}
