// One round of one volunteer, from its lease to its receipt: start weights and rows, the wait for the others, training,
// delivery. Ends early only through its signal or an error; who decides about leases and what comes next is the session.
import type { Lease, Manifest, Progress, Receipt, RoundView } from '@weft/protocol';
import type { Condition } from './clock.ts';
import { SessionError } from './errors.ts';
import { checkSide, checkStart, checkUpdate } from './factors.ts';
import type { VolunteerFiles } from './files.ts';
import type { Line } from './line.ts';
import type { Clock, ModelFiles, StepReport, Trainer, TrainingJob, TrainingResult } from './ports.ts';
import type { SessionState, StateHolder } from './state.ts';
import { sendUpload } from './upload.ts';
import { leasedSentence } from './words.ts';

export interface RoundContext {
  readonly line: Line;
  readonly files: VolunteerFiles;
  readonly trainer: Trainer;
  readonly clock: Clock;
  readonly holder: StateHolder;
  /** Poked whenever round, pause or connection change. */
  readonly condition: Condition;
  readonly manifest: Manifest;
  readonly model: ModelFiles;
  readonly lease: Lease;
  /** Rows of the volunteer's own file; null for the lease's task. */
  readonly ownRows: string | null;
  readonly signal: AbortSignal;
  /** Told after the stage has changed. */
  onStage(): void;
  whenRunning(): Promise<void>;
  /** When late work is taken no more, by the clock; null while the lease is live. */
  lateUntil(): number | null;
  /** Milliseconds an upload is expected to take; kept back from the round's deadline. */
  readonly uploadReserveMs: number;
}

const LOSSES_KEPT = 4_000;
/** Kept back from the deadline at least. */
const LEAST_RESERVE_MS = 2_000;

/** Plays the round. Rejects with the signal's reason, or with what went wrong. */
export async function playRound(context: RoundContext): Promise<Receipt> {
  const { lease, holder } = context;
  holder.update({ progress: emptyProgress(lease), download: null, upload: null });
  const start = await fetchStart(context);
  checkStart(start, lease.grant, lease.training.sparse);
  const side = await fetchSide(context);
  if (side) checkSide(side, lease.grant);
  const rows = await fetchRows(context);
  await waitForOpening(context);
  const result = await train(context, { start, side, rows });
  checkUpdate(result.update, start, { grant: lease.grant, pruning: lease.training.pruning, rank: result.rank });
  return deliver(context, result);
}

export const emptyProgress = (lease: Lease): Progress => ({
  stage: 'waiting',
  step: 0,
  steps: lease.training.steps,
  loss: null,
  targetTokens: 0,
  tokensPerSecond: null,
});

function enter(
  context: RoundContext,
  stage: Progress['stage'],
  change: Pick<Partial<SessionState>, 'download' | 'upload'> = {},
): void {
  const { holder, lease } = context;
  const progress = { ...(holder.state.progress ?? emptyProgress(lease)), stage };
  holder.update({ progress, waitingFor: null, ...change });
  holder.enter(stage);
  context.onStage();
}

async function fetchStart(context: RoundContext): Promise<Uint8Array> {
  const { files, lease, manifest, holder, signal, whenRunning } = context;
  const total = lease.start.bytes;
  const show = (bytes: number) => holder.update({ download: { what: 'start weights', bytes, total } });
  enter(context, 'downloading', { download: { what: 'start weights', bytes: 0, total } });
  return files.blob(lease.start, manifest.pieceBytes, { signal, whenRunning, onBytes: show });
}

async function fetchSide(context: RoundContext): Promise<Uint8Array | null> {
  const { files, lease, manifest, holder, signal, whenRunning } = context;
  if (lease.side === null) return null;
  const total = lease.side.bytes;
  const show = (bytes: number) => holder.update({ download: { what: 'weights to train beside', bytes, total } });
  show(0);
  return files.blob(lease.side, manifest.pieceBytes, { signal, whenRunning, onBytes: show });
}

async function fetchRows(context: RoundContext): Promise<string> {
  const { files, lease, manifest, holder, signal, whenRunning, ownRows } = context;
  if (ownRows !== null) return ownRows;
  const { task } = lease;
  if (task === null) {
    throw new SessionError('missing-file', 'The lease names no task to train on. Tell the operator.');
  }
  const file = manifest.files.find((entry) => entry.task === task && entry.name === 'train.jsonl');
  const total = file?.bytes ?? 0;
  const show = (bytes: number) => holder.update({ download: { what: 'sample rows', bytes, total } });
  const rows = await files.rows(manifest, task, 'train', { signal, whenRunning, onBytes: show });
  holder.update({ download: null });
  return rows;
}

/** Volunteers of a buffered run train at once: no phase of a round is theirs to wait for, or to meet. */
const isBuffered = ({ holder }: RoundContext): boolean => holder.state.run?.settings.mode === 'buffered';

async function waitForOpening(context: RoundContext): Promise<void> {
  const { lease, holder, condition, signal } = context;
  const here = () => (holder.state.round?.round === lease.round ? holder.state.round : null);
  const open = () => isBuffered(context) || here()?.phase === 'training';
  if (open()) return;
  enter(context, 'waiting');
  const tell = (round: RoundView | null) => {
    const waitingFor = round ? leasedSentence(round) : 'Waiting for the round to open.';
    if (holder.state.waitingFor !== waitingFor) holder.update({ waitingFor });
  };
  tell(here());
  await condition.until(() => {
    if (open()) return true;
    tell(here());
    return false;
  }, signal);
}

async function train(
  context: RoundContext,
  inputs: Pick<TrainingJob, 'start' | 'side' | 'rows'>,
): Promise<TrainingResult> {
  const { trainer, model, lease, holder, clock, signal, whenRunning } = context;
  const diverged = new AbortController();
  const startedAt = clock.now();
  let stepMs = 0;
  enter(context, 'training', { download: null });
  const onStep = (report: StepReport) => {
    if (!Number.isFinite(report.loss)) {
      diverged.abort(
        new SessionError(
          'diverged',
          `The loss became ${report.loss} at step ${report.step} of round ${lease.round}. The update was not sent; the next round starts afresh.`,
        ),
      );
      return;
    }
    stepMs = (clock.now() - startedAt) / report.step;
    const speed = report.tokensPerSecond;
    holder.update({
      progress: {
        stage: 'training',
        step: report.step,
        steps: report.steps,
        loss: report.loss,
        targetTokens: report.targetTokens,
        tokensPerSecond: Number.isFinite(speed) && speed >= 0 ? speed : null,
      },
      losses: [...holder.state.losses, { round: lease.round, step: report.step, loss: report.loss }].slice(
        -LOSSES_KEPT,
      ),
    });
  };
  // A part of the steps in time is worth more to the round than all of them too late.
  const finishEarly = () => {
    const { round, phaseEndsAt } = holder.state;
    const phaseEnd = round?.phase === 'training' && !isBuffered(context) ? phaseEndsAt : null;
    const end = context.lateUntil() ?? phaseEnd;
    if (end === null) return false;
    return clock.now() > end - Math.max(LEAST_RESERVE_MS, context.uploadReserveMs) - 2 * stepMs;
  };
  const onCompile = (done: number, total: number) =>
    holder.update({ compiling: done < total ? { done, total } : null });
  const both = AbortSignal.any([signal, diverged.signal]);
  const job = { grant: lease.grant, training: lease.training, ...inputs };
  try {
    // Not raced against the signal: the trainer must have let go of the GPU before anything else begins.
    return await trainer.train(model, job, { signal: both, whenRunning, finishEarly, onCompile, onStep });
  } finally {
    holder.update({ compiling: null });
    both.throwIfAborted();
  }
}

async function deliver(context: RoundContext, result: TrainingResult): Promise<Receipt> {
  const { line, lease, holder, signal, whenRunning } = context;
  const { clientId, run } = holder.state;
  if (!clientId || !run) throw new SessionError('closed', 'The session is not prepared; call prepare() first.');
  const party = { clientId, runId: run.runId, receiptKey: run.receiptKey };
  const total = result.update.length;
  const onBytes = (bytes: number) => holder.update({ upload: { what: 'the update', bytes, total } });
  enter(context, 'uploading', { upload: { what: 'the update', bytes: 0, total } });
  return sendUpload({ line, lease, result, party, signal, whenRunning, onBytes });
}
