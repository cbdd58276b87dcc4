// Which kernel variants are fastest on this machine's GPU adapters, kept in the user's cache folder between commands. A cache:
// what cannot be read is measured again. WEFT_TUNING=off does without measuring.
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import type { TuningStore } from '@weft/wgsl-kernels';
import { z } from 'zod';

const contents = z.record(z.string(), z.record(z.string(), z.string()));

/** Where choices are kept unless told otherwise. */
export const tuningPath = (environment: NodeJS.ProcessEnv = process.env): string =>
  join(environment.XDG_CACHE_HOME || join(homedir(), '.cache'), 'weft', 'kernel-variants.json');

/** Whether variants are measured at all. */
export const tuningIsOn = (environment: NodeJS.ProcessEnv = process.env): boolean => environment.WEFT_TUNING !== 'off';

/** Choices by adapter in a JSON file, replaced whole. Saving rejects where the folder cannot be written. */
export function tuningFile(path: string): TuningStore {
  const read = async (): Promise<z.infer<typeof contents>> => {
    const text = await readFile(path, 'utf8').catch(() => '{}');
    try {
      return contents.parse(JSON.parse(text));
    } catch {
      // Nothing is lost with a cache that was cut off or written by another version.
      return {};
    }
  };
  return {
    load: async (adapter) => (await read())[adapter],
    async save(adapter, choices) {
      const all = { ...(await read()), [adapter]: choices };
      await mkdir(dirname(path), { recursive: true });
      const draft = `${path}.${process.pid}`;
      await writeFile(draft, JSON.stringify(all, null, 2));
      await rename(draft, path);
    },
  };
}
