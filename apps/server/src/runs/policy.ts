// From a run's settings to the round machine's rules.
import { strategyByName } from '@weft/flexlora';
import { ProtocolError, type RunSettings } from '@weft/protocol';
import type { Policy } from '../coordinator/types.ts';

/** A merge of fewer would tell too much about each (docs/decisions/0001-own-file-minimum.md). */
export const LEAST_UPLOADS = 3;
export const LEAST_UPLOADS_WITH_OWN_FILES = 5;

export interface RoundTiming {
  readonly selectionGraceMs: number;
  readonly restMs: number;
}

export function policyOf(settings: RunSettings, timing: RoundTiming): Policy {
  const minimum = Math.max(settings.minimum, LEAST_UPLOADS);
  return {
    mode: settings.mode,
    goal: settings.goal,
    minimum,
    ownFileMinimum: settings.smallOwnFileCohorts ? minimum : Math.max(minimum, LEAST_UPLOADS_WITH_OWN_FILES),
    deterministic: settings.deterministic,
    seed: settings.seed,
    tasks: settings.tasks,
    ranks: settings.ranks,
    stratify: settings.stratify,
    concurrency: settings.concurrency ?? Math.ceil((settings.goal * 13) / 10),
    maxStaleness: settings.maxStaleness,
    rounds: settings.rounds,
    selectionMs: settings.selectionMs,
    graceMs: timing.selectionGraceMs,
    trainingMs: settings.trainingMs,
    mergingMs: settings.mergingMs,
    // A cohort that must repeat itself takes nothing from the one before it.
    lateMs: settings.deterministic ? 0 : settings.lateMs,
    restMs: timing.restMs,
  };
}

/** Throws ProtocolError 'bad-settings' for what the schema alone cannot see. */
export function checkSettings(
  settings: RunSettings,
  server: { readonly tasks: readonly string[]; readonly contextLength: number; readonly largestRank: number },
): void {
  const refuse = (message: string): never => {
    throw new ProtocolError('bad-settings', message);
  };
  if (settings.goal < LEAST_UPLOADS) {
    refuse(
      `goal: a merge takes at least ${LEAST_UPLOADS} uploads, so the goal must be at least ${LEAST_UPLOADS}, not ${settings.goal}.`,
    );
  }
  if (settings.mode === 'buffered' && strategyByName(settings.strategy).synchronousOnly) {
    refuse(
      `mode: ${settings.strategy} merges no work that started from an older version, so it cannot be buffered; choose another strategy or the mode synchronous.`,
    );
  }
  const unknown = settings.tasks.find((task) => !server.tasks.includes(task));
  if (unknown !== undefined) {
    refuse(`tasks: the server has no task "${unknown}"; it has ${server.tasks.join(', ')}.`);
  }
  const repeated = settings.tasks.find((task, i) => settings.tasks.indexOf(task) !== i);
  if (repeated !== undefined) refuse(`tasks: "${repeated}" is named twice.`);
  if (new Set(settings.targets).size !== settings.targets.length) refuse('targets: a projection is named twice.');
  if (settings.sequenceLength > server.contextLength) {
    refuse(
      `sequenceLength: the model's context ends at ${server.contextLength} tokens, not ${settings.sequenceLength}.`,
    );
  }
  const tooLarge = settings.ranks.find((rank) => rank > server.largestRank);
  if (tooLarge !== undefined) {
    refuse(`ranks: no matrix of this model can hold rank ${tooLarge}; the largest is ${server.largestRank}.`);
  }
}
