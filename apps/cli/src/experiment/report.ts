// What an experiment leaves: losses before and after, what a unigram model would have reached, who uploaded what.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseDataLines } from '@weft/formats';
import type { RunSnapshot } from '@weft/protocol';
import { type BaseModel, type Example, encodeRows, unigramBaseline } from '@weft/trainer';
import { CommandError, formatBytes, table } from '../command.ts';
import { meanLoss } from './watch.ts';

export type LossByTask = Readonly<Record<string, number>>;

export interface ExperimentReport {
  readonly gpu: { readonly name: string; readonly software: boolean };
  /** Folder of the base model. */
  readonly model: string;
  /** Held-out rows of each task. */
  readonly data: Readonly<Record<string, string>>;
  readonly strategy: string;
  readonly rounds: readonly {
    readonly round: number;
    readonly cohort: number;
    readonly mergeMs: number;
    readonly heldOutLoss: LossByTask;
  }[];
  /** Uploads of the last committed round. */
  readonly clients: readonly {
    readonly id: string;
    readonly name: string | null;
    readonly task: string;
    readonly rank: number;
    readonly uploadBytes: number;
  }[];
  readonly heldOutLoss: { readonly before: LossByTask; readonly after: LossByTask; readonly unigram: LossByTask };
  /** Folder of the merged adapter in PEFT's format. */
  readonly adapter: string;
  readonly exportRank: number;
  /** One JSON document a line: everything the dashboard draws. */
  readonly metrics: string;
}

const labelsOf = (examples: readonly Example[]): number[] =>
  examples.flatMap(({ labels }) => labels.slice(1).filter((label) => label >= 0));

/** Loss of a unigram model of each task's training answers on the labelled tokens of its test rows, nats per token. */
export async function unigramLosses(
  model: BaseModel,
  tasksDir: string,
  tasks: readonly string[],
  sequenceLength: number,
): Promise<LossByTask> {
  const losses: Record<string, number> = {};
  for (const task of tasks) {
    const tokens = async (split: string): Promise<number[]> => {
      const path = join(tasksDir, task, `${split}.jsonl`);
      return labelsOf(encodeRows(parseDataLines(await readFile(path, 'utf8'), path), model, sequenceLength).examples);
    };
    const splits = { train: await tokens('train'), validation: await tokens('validation'), test: await tokens('test') };
    losses[task] = unigramBaseline(splits, model.config.vocabSize).loss;
  }
  return losses;
}

/** The parts of a report that the run itself tells. Throws CommandError 'nothing-committed'. */
export function reportRounds({
  run,
  rounds,
  baseLoss,
}: RunSnapshot): Pick<ExperimentReport, 'strategy' | 'rounds' | 'clients'> & { before: LossByTask; after: LossByTask } {
  const committed = rounds.filter(({ outcome }) => outcome === 'committed');
  const last = committed.at(-1);
  if (!last || !baseLoss || !last.heldOutLoss) {
    throw new CommandError(
      'nothing-committed',
      `The run ended without a committed and measured round. ${run.outcome ?? ''}`,
    );
  }
  return {
    strategy: run.settings.strategy,
    rounds: committed.map(({ round, contributions, mergeMs, heldOutLoss }) => ({
      round,
      cohort: contributions.filter(({ quarantined }) => quarantined === null).length,
      mergeMs,
      heldOutLoss: heldOutLoss ?? {},
    })),
    clients: last.contributions
      .filter(({ quarantined }) => quarantined === null)
      .map(({ clientId, name, task, rank, uploadBytes }) => ({
        id: clientId,
        name,
        task: task ?? 'own file',
        rank,
        uploadBytes,
      }))
      .sort((a, b) => a.rank - b.rank),
    before: baseLoss,
    after: last.heldOutLoss,
  };
}

/** Two tables: task × losses, client × bytes. */
export function reportText({ heldOutLoss, clients, adapter, exportRank, metrics, gpu }: ExperimentReport): string {
  const { before, after, unigram } = heldOutLoss;
  const show = (loss: number | null | undefined) => loss?.toFixed(3) ?? '–';
  const tasks = Object.keys(before).sort();
  const losses = table([
    ['task', 'before', 'after', 'unigram'],
    ...tasks.map((task) => [task, show(before[task]), show(after[task]), show(unigram[task])]),
    ['mean', show(meanLoss(before)), show(meanLoss(after)), show(meanLoss(unigram))],
  ]);
  const uploads = table([
    ['client', 'task', 'rank', 'uploaded'],
    ...clients.map(({ id, name, task, rank, uploadBytes }) => [name ?? id, task, rank, formatBytes(uploadBytes)]),
  ]);
  const place = `Adapter (rank ${exportRank}, PEFT): ${adapter}\nMetrics: ${metrics}\nGPU: ${gpu.name}${gpu.software ? ' (software adapter)' : ''}`;
  return `\nHeld-out loss, nats per token\n${losses}\n\nLast round\n${uploads}\n\n${place}`;
}
