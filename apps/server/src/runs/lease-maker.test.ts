import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readSafetensors } from '@weft/formats';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BlobFolder } from '../store/blobs.ts';
import { leaseCohort } from '../testing/cohort.ts';
import { MODEL_DIR } from '../testing/server.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-leases-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('LeaseMaker', () => {
  it('reads start weights out once a rank, for ten thousand clients at once, and not again after a restart', async () => {
    const cohort = { clients: 10_000, ranks: [2, 4, 8] };
    const { leases, readOuts } = await leaseCohort(folder, MODEL_DIR, cohort);
    expect(readOuts.map(({ grant }) => grant.rank).sort()).toEqual([2, 4, 8]);
    expect(leases).toHaveLength(10_000);
    const blobs = new BlobFolder(join(folder, 'blobs'));
    const starts = new Map(leases.map(({ start, grant }) => [start.sha256, grant.rank]));
    expect([...starts.values()].sort()).toEqual([2, 4, 8]);
    // Every client is pointed at factors of the rank it was granted.
    for (const { grant, start } of leases) expect(starts.get(start.sha256)).toBe(grant.rank);
    for (const [sha256, rank] of starts) {
      const { tensors } = readSafetensors(blobs.read(sha256));
      for (const [name, { shape }] of tensors) expect(name.includes('lora_A') ? shape[0] : shape[1]).toBe(rank);
    }
    const again = await leaseCohort(folder, MODEL_DIR, cohort);
    expect(again.readOuts).toEqual([]);
    expect(again.leases).toEqual(leases);
  });
});
