// The tasks a server offers: one folder each, with task.json and the rows of three splits. Checked line by line before the
// server listens, so that no volunteer meets a bad row.
import { existsSync, readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseDataLines } from '@weft/formats';
import { idSchema, type TaskInfo } from '@weft/protocol';
import { z } from 'zod';
import { messageOf, ServerError } from '../errors.ts';
import { describeFile, type ServedFile } from './manifest.ts';

const SPLITS = ['train', 'validation', 'test'] as const;

const taskFileSchema = z.object({
  name: idSchema,
  title: z.string().min(1).max(200).optional(),
  definition: z.string().max(4000).default(''),
  licence: z.string().max(200).default('not stated'),
});

export interface Task {
  readonly info: TaskInfo;
  readonly files: readonly ServedFile[];
}

async function openTask(folder: string): Promise<Task> {
  const bad = (file: string, cause: unknown): never => {
    throw new ServerError('task-bad-file', `${join(folder, file)}: ${messageOf(cause)}`, { cause });
  };
  const about = await readFile(join(folder, 'task.json'), 'utf8')
    .then((text) => taskFileSchema.parse(JSON.parse(text)))
    .catch((cause: unknown) => bad('task.json', cause));
  const counts = await Promise.all(
    SPLITS.map((split) =>
      readFile(join(folder, `${split}.jsonl`), 'utf8')
        .then((text) => parseDataLines(text, `${split}.jsonl`).length)
        .catch((cause: unknown) => bad(`${split}.jsonl`, cause)),
    ),
  );
  const files = await Promise.all(
    SPLITS.map((split) =>
      describeFile(join(folder, `${split}.jsonl`), { kind: 'task', task: about.name, name: `${split}.jsonl` }),
    ),
  );
  const { name, title, definition, licence } = about;
  const [trainRows = 0, , testRows = 0] = counts;
  return { info: { name, title: title ?? name, definition, licence, trainRows, testRows }, files };
}

/** All tasks of a folder, by name in alphabetical order. Throws ServerError 'tasks-missing' or 'task-bad-file'. */
export async function openTaskFolder(folder: string): Promise<ReadonlyMap<string, Task>> {
  if (!existsSync(folder)) {
    throw new ServerError(
      'tasks-missing',
      `${folder} does not exist. Name a folder with one folder a task (task.json, train.jsonl, validation.jsonl, test.jsonl).`,
    );
  }
  const names = readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(join(folder, entry.name, 'task.json')))
    .map((entry) => entry.name)
    .sort();
  if (names.length === 0) {
    throw new ServerError(
      'tasks-missing',
      `${folder} holds no task. A task is a folder with task.json, train.jsonl, validation.jsonl and test.jsonl.`,
    );
  }
  const tasks = new Map<string, Task>();
  for (const name of names) {
    const task = await openTask(join(folder, name));
    if (tasks.has(task.info.name)) {
      throw new ServerError(
        'task-bad-file',
        `${folder}: two tasks call themselves "${task.info.name}"; rename one in its task.json.`,
      );
    }
    tasks.set(task.info.name, task);
  }
  return tasks;
}
