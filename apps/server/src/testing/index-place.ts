// Where the tests' history index lives: PGlite in a folder, or the PostgreSQL of the project `postgres`. And a run for it.
import { join } from 'node:path';
import { type Contribution, type RoundRecord, roundRecordSchema } from '@weft/protocol';
import { pino } from 'pino';
import type { IndexPlace } from '../store/connection.ts';
import { embeddedPlace } from '../store/embedded.ts';
import type { IndexedReceipt } from '../store/history.ts';
import { postgresPlace } from '../store/postgres.ts';

export const quiet = pino({ level: 'silent' });

export function testPlace(dataDir: string): IndexPlace {
  const url = process.env.WEFT_TEST_DATABASE_URL;
  return url ? postgresPlace(url, dataDir) : embeddedPlace(join(dataDir, 'database'), quiet);
}

const hash = (text: string) => text.padEnd(64, '0');
const AT = '2026-01-01T00:00:00.000Z';

export const testContribution = (clientId: string, more: Partial<Contribution> = {}): Contribution => ({
  clientId,
  name: `Volunteer ${clientId}`,
  rank: 4,
  prunedFrom: null,
  task: 'rooms',
  targetTokens: 100,
  examples: 10,
  uploadBytes: 1000,
  sha256: hash('a'),
  startVersion: 0,
  weight: 0.5,
  firstLoss: 2,
  lastLoss: 1,
  quarantined: null,
  changeNorm: 1,
  cosineToMean: 0.5,
  clip: 1,
  outlier: null,
  late: null,
  ...more,
});

export const testRound = (round: number, contributions: Contribution[], more: Partial<RoundRecord> = {}): RoundRecord =>
  roundRecordSchema.parse({
    round,
    version: round,
    outcome: 'committed',
    reason: null,
    endedAt: AT,
    mergeMs: 5,
    contributions,
    trainLoss: 1,
    heldOutLoss: null,
    spectra: [],
    ...more,
  });

/** A run whose files are in memory: by round, the receipts of its sidecars; and the leases whose upload was taken back. */
export function testRun(
  runId: string,
  records: RoundRecord[],
  receipts: Map<number, IndexedReceipt[]> = new Map(),
  withdrawn: Set<string> = new Set(),
) {
  const uploads = (round: number) => receipts.get(round) ?? [];
  return {
    definition: { runId, createdAt: AT, runHash: hash('e'), settings: { name: `Run ${runId}`, strategy: 'flexlora' } },
    store: {
      uploadRounds: () => [...receipts.keys()],
      uploadLeases: (round: number) =>
        uploads(round)
          .map(({ leaseId }) => leaseId)
          .sort(),
      readUpload: (round: number, leaseId: string) => {
        const receipt = uploads(round).find((each) => each.leaseId === leaseId);
        return receipt ? { receipt, withdrawn: withdrawn.has(leaseId) ? AT : null } : null;
      },
    },
    records: () => records,
  };
}

export const testReceipt = (runId: string, round: number, leaseId: string, clientId: string): IndexedReceipt => ({
  receiptId: `r-${leaseId}`,
  runId,
  round,
  clientId,
  leaseId,
  sha256: hash('a'),
  bytes: 1000,
  targetTokens: 100,
  acceptedAt: AT,
});
