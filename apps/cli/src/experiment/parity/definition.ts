// The experiment that packages/flexlora/reference/rounds.py and this project both run: its settings, its clients, and the
// token ids that every step of it learns from, as the trainer's own data pipeline makes them.
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { parseDataLines } from '@weft/formats';
import type { RunSettingsInput, StrategyName } from '@weft/protocol';
import { encodeRows, loadModel, MODEL_FILES, oneExamplePerRow, seededRandom, shuffled } from '@weft/trainer';

export const inRepository = (path: string): string => fileURLToPath(new URL(`../../../../../${path}`, import.meta.url));

export const MODEL_DIR = inRepository('assets/models/stories260K');
export const TASKS_DIR = inRepository('assets/tasks/natural-instructions');

/** Names seed the order of rows in a deterministic run; ranks are mixed, and every client has a task of its own. */
export const CLIENTS = [
  { name: 'ada', rank: 2, task: 'rooms' },
  { name: 'bo', rank: 4, task: 'travel' },
  { name: 'cy', rank: 8, task: 'wellformed-query' },
  { name: 'di', rank: 16, task: 'containers' },
] as const;

/** Why gradients are clipped this hard: packages/flexlora/reference/README.md. */
export const TRAINING = {
  ranks: [2, 4, 8, 16],
  rounds: 3,
  localSteps: 4,
  batchSize: 4,
  sequenceLength: 48,
  alphaPerRank: 2,
  learningRate: 0.005,
  schedule: 'linear',
  warmupSteps: 1,
  weightDecay: 0.05,
  maxGradNorm: 2e-6,
  seed: 'parity',
} as const;

export const settingsOf = (strategy: StrategyName): RunSettingsInput => ({
  ...TRAINING,
  ranks: [...TRAINING.ranks],
  name: `Parity, ${strategy}`,
  purpose: 'Compare whole rounds with values computed elsewhere.',
  operator: 'the tests',
  strategy,
  tasks: CLIENTS.map(({ task }) => task),
  goal: CLIENTS.length,
  minimum: CLIENTS.length,
  deterministic: true,
  evaluate: false,
});

/**
 * One line of settings and clients, then one a step: the rows that it learns from, in the order in which the trainer takes
 * them. No client comes to a second pass over its task.
 */
export async function inputLines(): Promise<string> {
  const files = await Promise.all(
    MODEL_FILES.map(async (name) => [name, await readFile(`${MODEL_DIR}/${name}`)] as const),
  );
  const model = await loadModel(new Map(files));
  const lines: object[] = [{ settings: TRAINING, clients: CLIENTS }];
  for (const { name, task } of CLIENTS) {
    const rows = parseDataLines(await readFile(`${TASKS_DIR}/${task}/train.jsonl`, 'utf8'), task);
    const examples = oneExamplePerRow(encodeRows(rows, model, TRAINING.sequenceLength).examples);
    for (let round = 1; round <= TRAINING.rounds; round += 1) {
      const order = shuffled(examples, seededRandom(`${TRAINING.seed}/${round}/${name}`, 'shuffle', '0'));
      for (let step = 1; step <= TRAINING.localSteps; step += 1) {
        const batch = order.slice((step - 1) * TRAINING.batchSize, step * TRAINING.batchSize).flat();
        lines.push({
          client: name,
          round,
          step,
          rows: batch.map(({ inputIds, labels }) => ({ inputIds, labels })),
        });
      }
    }
  }
  return lines.map((line) => `${JSON.stringify(line)}\n`).join('');
}
