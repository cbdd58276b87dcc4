// What a killed or crashed server left half done: found when the next one starts, told to its log and to `report.json`, and
// removed where it is of no use. Looks at names and sizes of what the open rounds need; past rounds are nobody's hurry.
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { BlobFolder } from './blobs.ts';
import { isDiskFull, writeJson } from './files.ts';
import type { UploadRecord } from './run-store.ts';

const findingSchema = z.object({
  kind: z.enum(['temporary', 'partial-without-lease', 'upload-missing', 'upload-damaged', 'journal-cut']),
  /** Path inside the data folder. */
  path: z.string(),
  bytes: z.int().nonnegative(),
  /** What was done about it, and what it means. */
  text: z.string(),
});
export type Finding = z.infer<typeof findingSchema>;

export const checkReportSchema = z.object({ startedAt: z.iso.datetime(), findings: z.array(findingSchema) });

/** What one start found. Each finding is a line of the log. */
export class CheckReport {
  readonly #path: string;
  readonly #startedAt: string;
  readonly #logger: Logger;
  readonly #findings: Finding[] = [];

  constructor(dataDir: string, startedAt: Date, logger: Logger) {
    this.#path = join(dataDir, 'report.json');
    this.#startedAt = startedAt.toISOString();
    this.#logger = logger;
  }

  add(finding: Finding): void {
    this.#findings.push(finding);
    this.#logger.warn({ finding: finding.kind, file: finding.path, bytes: finding.bytes }, finding.text);
  }

  get findings(): readonly Finding[] {
    return this.#findings;
  }

  /** Counts by kind. */
  counts(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { kind } of this.#findings) counts[kind] = (counts[kind] ?? 0) + 1;
    return counts;
  }

  /** Writes `report.json` and one line of summary. */
  write(): void {
    const counts = this.counts();
    this.#logger.info({ findings: counts }, `checked the data folder: ${this.#findings.length} findings`);
    try {
      writeJson(this.#path, { startedAt: this.#startedAt, findings: this.#findings });
    } catch (error) {
      // A report is no reason not to start.
      if (!isDiskFull(error)) throw error;
      this.#logger.error({ err: error }, 'report.json could not be written');
    }
  }
}

/** Removes files that were being written when the last server ended. Only files of ours are named so. */
export function removeTemporaries(dataDir: string, report: CheckReport): void {
  const visit = (folder: string): void => {
    for (const entry of readdirSync(join(dataDir, folder), { withFileTypes: true })) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) {
        // The database and the merges' results look after themselves.
        if (path !== 'database' && path !== 'merging') visit(path);
      } else if (/\.[0-9a-f]{8}\.tmp$/.test(entry.name)) {
        const { size } = statSync(join(dataDir, path));
        rmSync(join(dataDir, path), { force: true });
        report.add({ kind: 'temporary', path, bytes: size, text: `${path} was half written, and was removed.` });
      }
    }
  };
  if (existsSync(dataDir)) visit('');
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

/** Why the bytes of an acknowledged upload cannot be merged, by their presence and size; null when they can. */
export function uploadFault(uploads: BlobFolder, { receipt }: UploadRecord): string | null {
  const path = uploads.path(receipt.sha256);
  if (!existsSync(path)) return `The server has lost the bytes of this upload (${receipt.sha256.slice(0, 12)}…).`;
  const { size } = statSync(path);
  if (size === receipt.bytes) return null;
  return `The server has ${size} of the ${receipt.bytes} bytes of this upload (${receipt.sha256.slice(0, 12)}…).`;
}

/**
 * Reads the acknowledged uploads of an open round and compares them with their hashes. A damaged one is set aside, so that
 * its merge leaves it out by name; its receipt stays.
 */
export async function checkUploads(
  uploads: BlobFolder,
  records: readonly UploadRecord[],
  report: CheckReport,
): Promise<void> {
  for (const record of records) {
    const { receipt } = record;
    const path = join('uploads', receipt.sha256.slice(0, 2), receipt.sha256);
    const fault = uploadFault(uploads, record);
    if (fault) {
      const kind = existsSync(uploads.path(receipt.sha256)) ? 'upload-damaged' : 'upload-missing';
      report.add({
        kind,
        path,
        bytes: receipt.bytes,
        text: `${fault} Receipt ${receipt.receiptId} stands; no merge can use it.`,
      });
    } else if ((await hashOf(uploads.path(receipt.sha256))) !== receipt.sha256) {
      renameSync(uploads.path(receipt.sha256), `${uploads.path(receipt.sha256)}.damaged`);
      report.add({
        kind: 'upload-damaged',
        path,
        bytes: receipt.bytes,
        text: `${path} does not have its hash and was set aside as ${receipt.sha256.slice(0, 12)}….damaged. Receipt ${receipt.receiptId} stands; no merge can use it.`,
      });
    }
  }
}
