// A simulation file: one run, its model and data, its clients by rank, and the strategies to compare. YAML, paths relative to
// the file.
import { dirname, resolve } from 'node:path';
import { type RunSettings, runSettingsSchema, type StrategyName, strategySchema } from '@weft/protocol';
import { parse } from 'yaml';
import { z } from 'zod';
import { CommandError } from '../command.ts';

const clientsSchema = z.strictObject({ rank: z.int().min(1).max(4096), count: z.int().min(1).max(10_000) });

const fileSchema = z.strictObject({
  /** Folder of the base model, Hugging Face layout, or hf:ORG/NAME. */
  model: z.string().min(1),
  /** Folder with one folder a task. */
  tasks: z.string().min(1),
  run: z.record(z.string(), z.unknown()),
  clients: z.array(clientsSchema).min(1).max(64),
  /** `task`: a client has one task, by turns; `mixed`: some rows of each. No two clients share a row. */
  data: z.enum(['task', 'mixed']).default('task'),
  strategies: z.array(strategySchema).min(1),
  /** Rounds after the others in which nobody trains. */
  idleRounds: z.int().min(0).max(1000).default(0),
  /** Held-out loss every so many rounds; the last is always measured. */
  evaluateEvery: z.int().min(1).default(5),
});

export interface Simulation {
  readonly model: string;
  readonly tasksDir: string;
  /** Settings by strategy: the same but for that. */
  readonly runs: readonly RunSettings[];
  /** Rank of every client, in the order of the file. */
  readonly ranks: readonly number[];
  readonly data: 'task' | 'mixed';
  readonly idleRounds: number;
  readonly evaluateEvery: number;
}

/** The first thing at fault, as `field: what`. */
const firstIssue = (error: z.ZodError, prefix = ''): string => {
  const [issue] = error.issues;
  return `${[prefix, ...(issue?.path ?? [])].filter((part) => part !== '').join('.') || 'the file'}: ${issue?.message ?? 'does not match'}`;
};

/** Parses the text of a simulation file. Throws CommandError 'experiment' naming the first field at fault. */
export function parseSimulation(text: string, path: string): Simulation {
  const refuse = (what: string, cause?: unknown): never => {
    throw new CommandError('experiment', `${path}: ${what}.`, { cause });
  };
  let document: unknown;
  try {
    document = parse(text);
  } catch (cause) {
    return refuse(`it is not YAML: ${cause instanceof Error ? cause.message : cause}`, cause);
  }
  const read = fileSchema.safeParse(document);
  if (!read.success) return refuse(firstIssue(read.error), read.error);
  const { model, tasks, run, clients, data, strategies, idleRounds, evaluateEvery } = read.data;
  const settingsOf = (strategy: StrategyName): RunSettings => {
    const ranks = [...new Set(clients.map(({ rank }) => rank))].sort((a, b) => a - b);
    const settings = runSettingsSchema.safeParse({ ...run, ranks, strategy });
    if (!settings.success) return refuse(`with ${strategy}, ${firstIssue(settings.error, 'run')}`);
    if (settings.data.rejectOpposed > 0)
      refuse('run.rejectOpposed: a simulation merges every client; a server can reject');
    // The law that runs are laid beside is one of factors from the first round on.
    if (settings.data.sparseRounds > 0)
      refuse(`with ${strategy}, run.sparseRounds: sparse rounds are not simulated; run them with weft fleet`);
    return settings.data;
  };
  const from = (folder: string): string => resolve(dirname(path), folder);
  return {
    model: model.startsWith('hf:') ? model : from(model),
    tasksDir: from(tasks),
    runs: strategies.map(settingsOf),
    ranks: clients.flatMap(({ rank, count }) => new Array<number>(count).fill(rank)),
    data,
    idleRounds,
    evaluateEvery,
  };
}
