// A committed version on its way out: as an export for the operator, as a job for an evaluator.
import { strategyByName } from '@weft/flexlora';
import { type EvaluationJob, ProtocolError, type RoundRecord, type RunView } from '@weft/protocol';
import type { AdapterSource } from '../http/adapter.ts';
import type { Archive } from './archive.ts';
import { stateRankOf } from './grants.ts';
import type { LeaseMaker } from './lease-maker.ts';
import type { RunContext } from './run-context.ts';

export interface ExportWish {
  /** The run's largest when left out. */
  readonly rank?: number | undefined;
  /** The latest when left out. */
  readonly version?: number | undefined;
}

/** Throws ProtocolError 'not-found' for a version there is not, 'bad-message' for a rank no matrix can hold. */
export async function exportSource(
  { definition, matrices, blobs }: RunContext,
  { archive, leases }: { readonly archive: Archive; readonly leases: LeaseMaker },
  { run, records }: { readonly run: RunView; readonly records: readonly RoundRecord[] },
  wanted: ExportWish,
): Promise<AdapterSource> {
  const version = wanted.version ?? run.version;
  if (!archive.globalOf(version)) {
    const what =
      run.version === 0 ? 'No round is committed yet, so there is no adapter.' : `The run has no version ${version}.`;
    throw new ProtocolError('not-found', what);
  }
  const largest = Math.max(...matrices.map((matrix) => Math.min(matrix.out, matrix.in)));
  const rank = wanted.rank ?? definition.settings.ranks.at(-1) ?? 1;
  if (rank > largest) {
    throw new ProtocolError(
      'bad-message',
      `rank: no matrix of this model can hold rank ${rank}; the largest is ${largest}.`,
    );
  }
  const grant = leases.grantOf(rank);
  const state = await leases.state(version, grant);
  return { run, version, matrices, grant, factors: blobs.read(state.sha256), records };
}

/**
 * A version to measure: at the run's largest rank, or whole where clients have it whole, beside what they train. Version 0
 * is the base model alone.
 */
export async function evaluationJob(
  { definition }: RunContext,
  leases: LeaseMaker,
  { jobId, version }: { readonly jobId: string; readonly version: number },
): Promise<EvaluationJob> {
  const { settings, identity, runId } = definition;
  const whole = strategyByName(settings.strategy).side !== 'none';
  const grant = leases.grantOf(whole ? stateRankOf(settings) : (settings.ranks.at(-1) ?? 1));
  const adapter = version === 0 ? null : await leases.state(version, grant);
  const { sequenceLength, baseDtype } = identity;
  return { jobId, runId, version, adapter, grant, tasks: settings.tasks, sequenceLength, baseDtype };
}
