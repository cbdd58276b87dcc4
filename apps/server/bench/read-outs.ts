// How often start weights are read out for a crowd of clients, counted on the parts of a real server. Started by
// `npm run bench -w packages/flexlora`, which asks for clients and ranks in its arguments and reads one line of JSON.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { leaseCohort } from '../src/testing/cohort.ts';

const [modelDir, clients, ranks] = process.argv.slice(2);
if (modelDir === undefined || clients === undefined || ranks === undefined)
  throw new TypeError('read-outs takes MODEL_DIR CLIENTS RANK,RANK,…');
const folder = mkdtempSync(join(tmpdir(), 'weft-read-outs-'));
try {
  const cohort = { clients: Number(clients), ranks: ranks.split(',').map(Number) };
  const { leases, readOuts, ms } = await leaseCohort(folder, modelDir, cohort);
  process.stdout.write(`${JSON.stringify({ leases: leases.length, readOuts: readOuts.length, ms })}\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
