// From a session's state to what the page draws. Pure.
import type { DeviceReport, RunView } from '@weft/protocol';
import { type SessionState, statusLine } from '@weft/volunteer';
import type { LeavingField, RunFacts, TabState } from './api.ts';

export interface TabFacts {
  readonly leaving: readonly LeavingField[];
  readonly storageNote: string | null;
  readonly helping: boolean;
  readonly asksToDownload: boolean;
  readonly missingBytes: number | null;
  /** Date.now() at 0 of the session's clock. */
  readonly clockOrigin: number;
}

/** How the volunteer knows the GPU: its most telling name, with the vendor where it adds something. */
export function deviceLabel({ adapter }: Pick<DeviceReport, 'adapter'>): string {
  const { description, device, architecture, vendor } = adapter;
  const name = description || device || architecture || vendor || 'GPU without a name';
  const maker = vendor && !name.toLowerCase().includes(vendor.toLowerCase()) ? `${vendor} ` : '';
  return `${maker}${name}`;
}

function runFacts(run: RunView, manifest: SessionState['manifest']): RunFacts {
  const { settings } = run;
  const listed = new Map((manifest?.tasks ?? []).map((task) => [task.name, task]));
  return {
    runId: run.runId,
    name: settings.name,
    purpose: settings.purpose,
    operator: settings.operator,
    state: run.state,
    rounds: settings.rounds,
    roundsCommitted: run.roundsCommitted,
    outcome: run.outcome,
    localSteps: settings.localSteps,
    sequenceLength: settings.sequenceLength,
    allowOwnFiles: settings.allowOwnFiles,
    model: run.model,
    tasks: settings.tasks.map((name) => {
      const task = listed.get(name);
      return {
        name,
        title: task?.title ?? name,
        definition: task?.definition ?? '',
        licence: task?.licence ?? '',
        trainRows: task?.trainRows ?? 0,
      };
    }),
  };
}

export function tabState(state: SessionState, facts: TabFacts): TabState {
  const { stage, connected, paused, finishing, clientId, round, ownLimits, data, download, upload } = state;
  const { run, manifest, device, proposal, lease, progress, phaseEndsAt } = state;
  const modelFiles = manifest?.files.filter((file) => file.kind === 'model');
  return {
    stage,
    connected,
    paused,
    finishing,
    clientId,
    run: run && runFacts(run, manifest),
    round,
    phaseEndsAt: phaseEndsAt === null ? null : phaseEndsAt + facts.clockOrigin,
    modelBytes: modelFiles?.reduce((sum, file) => sum + file.bytes, 0) ?? null,
    missingBytes: facts.missingBytes,
    helping: facts.helping,
    asksToDownload: facts.asksToDownload,
    device: device && { label: deviceLabel(device), software: device.adapter.software },
    rank: proposal?.rank ?? null,
    verdicts: proposal?.verdicts ?? [],
    ownLimits,
    data,
    lease: lease && {
      round: lease.round,
      rank: lease.grant.rank,
      sparse: lease.training.sparse !== null,
      steps: lease.training.steps,
      startVersion: lease.startVersion,
      task: lease.task,
    },
    download,
    upload,
    step: progress?.step ?? 0,
    steps: progress?.steps ?? 0,
    compiling: state.compiling,
    losses: state.losses.map((point) => point.loss),
    receipts: state.receipts,
    totals: state.totals,
    status: statusLine(state),
    note: state.note,
    error: state.error,
    outcome: state.outcome,
    leaving: facts.leaving,
    storageNote: facts.storageNote,
  };
}
