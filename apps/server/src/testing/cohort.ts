// Many registered clients of few ranks asking for their leases at once, on a data folder and merge processes as a server has
// them: for the test and the bench that count how often start weights are read out.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Factors, lowRankOf } from '@weft/flexlora';
import { loraTargets, parseModelConfig, writeSafetensors } from '@weft/formats';
import { type Lease, PROJECTIONS, type RunIdentity, runSettingsSchema } from '@weft/protocol';
import type { Merger, ReadOutJob } from '../merge/merger.ts';
import { WorkerMerger } from '../merge/pool.ts';
import { stateTensors } from '../merge/state-file.ts';
import type { Matrix } from '../runs/grants.ts';
import { LeaseMaker } from '../runs/lease-maker.ts';
import { BlobFolder } from '../store/blobs.ts';
import { hashIdentity } from '../store/manifest.ts';
import { type RunDefinition, RunStore } from '../store/run-store.ts';

/** Rank of the committed state. */
const STATE_RANK = 32;

function definitionOf(ranks: readonly number[]): RunDefinition {
  const settings = runSettingsSchema.parse({
    name: 'Many clients',
    purpose: 'Count read-outs.',
    operator: 'the tests',
    strategy: 'flexlora',
    ranks,
    tasks: ['rooms'],
  });
  const manifestHash = createHash('sha256').update('no manifest').digest('hex');
  const identity: RunIdentity = {
    manifestHash,
    baseDtype: settings.baseDtype,
    sequenceLength: settings.sequenceLength,
    promptTemplate: '{prompt}',
    targets: [...PROJECTIONS],
  };
  const createdAt = '2026-01-01T00:00:00.000Z';
  return { runId: 'many-clients', createdAt, settings, manifestHash, identity, runHash: hashIdentity(identity) };
}

/** An update without meaning, the same every time. */
function stateOf({ module, out, in: inner }: Matrix, index: number): ReturnType<typeof stateTensors> {
  let seed = index + 1;
  const draw = (): number => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    return seed / 2 ** 32 - 0.5;
  };
  const rank = Math.min(STATE_RANK, out, inner);
  const factors: Factors = {
    out,
    in: inner,
    rank,
    scale: 1,
    a: Float64Array.from({ length: rank * inner }, draw),
    b: Float64Array.from({ length: out * rank }, draw),
  };
  return stateTensors(module, lowRankOf(factors));
}

export interface CohortOfLeases {
  readonly leases: readonly Lease[];
  /** What the merger was asked for. */
  readonly readOuts: readonly ReadOutJob[];
  readonly ms: number;
}

/**
 * `clients` ask for version 1 of a model's adapter at the same time, their ranks by turns. `folder` is used as a run's data
 * folder and kept: asked again there, a server that has been restarted.
 */
export async function leaseCohort(
  folder: string,
  modelDir: string,
  { clients, ranks }: { readonly clients: number; readonly ranks: readonly number[] },
): Promise<CohortOfLeases> {
  const matrices = loraTargets(parseModelConfig(readFileSync(join(modelDir, 'config.json'), 'utf8'))).map<Matrix>(
    ({ module, out, in: columns }) => ({ module, out, in: columns }),
  );
  const globals = new BlobFolder(join(folder, 'globals'));
  const global = await globals.put(writeSafetensors(matrices.flatMap(stateOf)));
  const processes = new WorkerMerger(join(folder, 'merging'), 1);
  const readOuts: ReadOutJob[] = [];
  const merger: Merger = {
    readOut(job) {
      readOuts.push(job);
      return processes.readOut(job);
    },
    changes: (uploads, of) => processes.changes(uploads, of),
    agreement: (uploads, of) => processes.agreement(uploads, of),
    merge: (job) => processes.merge(job),
  };
  try {
    const maker = new LeaseMaker(
      {
        definition: definitionOf(ranks),
        matrices,
        store: new RunStore(join(folder, 'run')),
        blobs: new BlobFolder(join(folder, 'blobs')),
        globals,
        merger,
        timing: {
          leaseMs: 60_000,
          hiddenLeaseMs: 120_000,
          heartbeatMs: 10_000,
          selectionGraceMs: 5_000,
          restMs: 1_000,
        },
      },
      () => global,
    );
    const began = performance.now();
    const leases = await Promise.all(
      Array.from({ length: clients }, (_, i) => {
        const rank = ranks[i % ranks.length] ?? 1;
        const clientId = `client-${i}`;
        const place = { leaseId: `lease-${i}`, clientId, key: clientId, rank, task: 'rooms', own: false };
        return maker.make({ ...place, state: 'live', reason: null, round: 2, version: 1 });
      }),
    );
    return { leases, readOuts, ms: performance.now() - began };
  } finally {
    await processes.close();
  }
}
