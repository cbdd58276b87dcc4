// What a killed or crashed server left half done: found when the next one starts, told to its log and to `report.json`, and
// removed where it is of no use. Looks at names and sizes of what the open rounds need; past rounds are nobody's hurry.
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { BlobFolder } from './blobs.ts';
import type { CheckReport } from './check-report.ts';
import type { UploadRecord } from './run-store.ts';

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
