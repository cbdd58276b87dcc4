// An experiment file: one run, its model and data, and the tabs that take part. YAML, paths relative to the file.
import { runSettingsSchema } from '@weft/protocol';
import { parse } from 'yaml';
import { z } from 'zod';
import { FleetError } from './launch.ts';

export const tabSchema = z.object({
  name: z.string().trim().min(1).max(60),
  /** Served task this tab trains on; left out, the server gives the next by turns. */
  task: z.string().optional(),
  /** The volunteer's own limits, as on the page under "My limits". MB = 10⁶ bytes. */
  maxMemoryMB: z.number().positive().optional(),
  maxRank: z.int().positive().optional(),
  maxUploadMB: z.number().positive().optional(),
});
export type TabSettings = z.output<typeof tabSchema>;

export const experimentSchema = z.strictObject({
  /** Folder of the base model, Hugging Face layout. */
  model: z.string().min(1),
  /** Folder with one folder a task. */
  tasks: z.string().min(1),
  run: runSettingsSchema,
  tabs: z.array(tabSchema).min(1).max(64),
});
export type Experiment = z.output<typeof experimentSchema>;

/** Parses the text of an experiment file. Throws FleetError 'experiment' naming the first field at fault. */
export function parseExperiment(text: string, file: string): Experiment {
  let document: unknown;
  try {
    document = parse(text);
  } catch (cause) {
    throw new FleetError('experiment', `${file} is not YAML: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
    });
  }
  const result = experimentSchema.safeParse(document);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const field = issue?.path.join('.') || 'the file';
  throw new FleetError('experiment', `${file}: ${field}: ${issue?.message ?? 'does not match'}`, {
    cause: result.error,
  });
}
