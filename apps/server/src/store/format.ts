// The layout of a data folder has a number, kept in `format.json`. Older folders are brought up to date step by step before
// anything reads them; a newer one is refused by name.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import { ServerError } from '../errors.ts';
import { readJson, writeDurably, writeJson } from './files.ts';

/** Layout this program reads and writes. */
export const DATA_FORMAT = 2;

const formatSchema = z.object({ format: z.int().positive() });

/** Brings a folder from the format of its key to the next. May be cut short and begun again. */
const MIGRATIONS: Readonly<Record<number, (dataDir: string) => void>> = {
  // 1 → 2: `state.json` is the beginning of a journal and says after which event.
  1(dataDir) {
    const runs = join(dataDir, 'runs');
    for (const runId of existsSync(runs) ? readdirSync(runs) : []) {
      const path = join(runs, runId, 'state.json');
      if (!existsSync(path)) continue;
      const state = z.looseObject({}).parse(JSON.parse(readFileSync(path, 'utf8')));
      if (!('sequence' in state)) writeDurably(path, `${JSON.stringify({ sequence: 0, ...state })}\n`);
    }
  },
};

/** The format of a data folder; null for an empty one. Folders older than `format.json` are of format 1. */
export function formatOf(dataDir: string): number | null {
  const known = readJson(join(dataDir, 'format.json'), formatSchema);
  if (known) return known.format;
  return existsSync(join(dataDir, 'runs')) || existsSync(join(dataDir, 'admin.json')) ? 1 : null;
}

/** Throws ServerError 'data-dir-newer'. */
export function checkFormat(dataDir: string, format: number | null): void {
  if (format === null || format <= DATA_FORMAT) return;
  throw new ServerError(
    'data-dir-newer',
    `${dataDir} has data format ${format}; this version of Weft knows formats up to ${DATA_FORMAT}. Update Weft, or restore a backup made before the newer version ran.`,
  );
}

/** Brings a locked data folder up to date. Throws ServerError 'data-dir-newer'. */
export function migrate(dataDir: string, logger: Logger): void {
  const found = formatOf(dataDir);
  checkFormat(dataDir, found);
  for (let format = found ?? DATA_FORMAT; format < DATA_FORMAT; format++) {
    MIGRATIONS[format]?.(dataDir);
    writeJson(join(dataDir, 'format.json'), { format: format + 1 });
    logger.info({ from: format, to: format + 1 }, `${dataDir} was brought to data format ${format + 1}`);
  }
  if (found === null) writeJson(join(dataDir, 'format.json'), { format: DATA_FORMAT });
}
