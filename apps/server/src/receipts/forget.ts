// Forgetting one volunteer in a run's files: raw uploads and their sidecars go, what a merge needs stays under another id. Every
// step may be done again, so a server killed in between finishes it at its next start.
import { randomBytes } from 'node:crypto';
import { type Contribution, FORGOTTEN_NAME } from '@weft/protocol';
import type { Archive } from '../runs/archive.ts';
import type { BlobFolder } from '../store/blobs.ts';
import type { Forgetting, RunStore } from '../store/run-store.ts';

export const makePseudonym = (): string => `forgotten-${randomBytes(6).toString('hex')}`;

/** What stays after a volunteer was forgotten, told to it word for word. */
export const REMAINS: readonly string[] = [
  'Adapters that were merged from your updates stay as they are: an update cannot be taken out of a merge.',
  'Records of the rounds keep your counts (tokens, bytes, share, losses) and the hash of each upload, under a random name.',
  'The hash tree over each round keeps the hash of your receipts, from which nothing of them can be read.',
  'The operator’s backups and server logs made before now are not reached from here.',
];

interface ForgetParts {
  readonly store: RunStore;
  readonly archive: Archive;
  readonly uploads: BlobFolder;
  /** Whether another lease’s upload of these very bytes is still to be merged. */
  readonly isNeeded: (sha256: string, leaseId: string) => boolean;
}

/** Returns how many uploads' bytes were deleted, and the names the volunteer went by. */
export function forgetInFiles(
  { store, archive, uploads, isNeeded }: ForgetParts,
  { clientId, pseudonym }: Forgetting,
): { deleted: number; names: string[] } {
  const names = new Set<string>();
  let deleted = 0;
  for (const round of store.uploadRounds()) {
    for (const { receipt, name, withdrawn } of store.readUploads(round)) {
      if (receipt.clientId !== clientId) continue;
      if (name !== null) names.add(name);
      if (!isNeeded(receipt.sha256, receipt.leaseId)) uploads.remove(receipt.sha256);
      store.removeUpload(round, receipt.leaseId);
      if (withdrawn === null) deleted += 1;
      const file = archive.of(round);
      const leaves = file?.leaves.map((leaf) =>
        leaf.receiptId === receipt.receiptId ? { ...leaf, receiptId: null } : leaf,
      );
      if (file && leaves) archive.add({ ...file, leaves });
    }
  }
  const renamed = (contribution: Contribution): Contribution => {
    if (contribution.clientId !== clientId) return contribution;
    if (contribution.name !== null) names.add(contribution.name);
    return { ...contribution, clientId: pseudonym, name: FORGOTTEN_NAME };
  };
  for (const file of archive.files()) {
    if (!file.record.contributions.some((contribution) => contribution.clientId === clientId)) continue;
    archive.add({ ...file, record: { ...file.record, contributions: file.record.contributions.map(renamed) } });
  }
  for (const file of store.readEvaluations()) {
    if (file.clientId === clientId) store.writeEvaluation({ ...file, clientId: pseudonym });
  }
  return { deleted, names: [...names] };
}

/** Gives the lines of a run's history, and the sentences in it, without this volunteer. */
export function withoutVolunteer(
  { clientId, pseudonym }: Forgetting,
  names: readonly string[],
): { line(line: string): string; text(text: string): string } {
  const called = [...names, `Volunteer ${clientId.slice(0, 6)}`].map((name) =>
    name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'),
  );
  // A name stands first in a sentence, or after "An upload of"; elsewhere the same letters are a word.
  const inSentence = new RegExp(`^(An upload of )?(?:${called.join('|')})(?= (?:is|was|delivered|took|asked) )`);
  const text = (sentence: string): string =>
    sentence.replace(inSentence, (_match, before?: string) => `${before ?? ''}${before ? 'a' : 'A'} ${FORGOTTEN_NAME}`);
  const change = (value: unknown): unknown => {
    if (typeof value === 'string') return value === clientId ? pseudonym : value;
    if (Array.isArray(value)) return value.map(change);
    if (value === null || typeof value !== 'object') return value;
    const isOf = 'clientId' in value && value.clientId === clientId;
    return Object.fromEntries(
      Object.entries(value).map(([key, item]): [string, unknown] => {
        if (isOf && key === 'name' && item !== null) return [key, FORGOTTEN_NAME];
        if (isOf && key === 'key') return [key, pseudonym];
        return [key, key === 'text' && typeof item === 'string' ? text(item) : change(item)];
      }),
    );
  };
  return {
    text,
    line(line) {
      let event: unknown;
      try {
        event = JSON.parse(line);
      } catch {
        // A line cut off by a kill; it holds no whole fact, and may hold a part of an id.
        return line.includes(clientId) ? '' : line;
      }
      return JSON.stringify(change(event));
    },
  };
}
