// A session's snapshots as lines for a terminal: one line for every event worth a line, none for a step.
import { type EvaluatorEvent, formatBytes, type SessionState, statusLine } from '@weft/volunteer';

const gpuOf = (state: SessionState): string => {
  const adapter = state.device?.adapter;
  if (!adapter) return 'this device';
  const name = adapter.description || adapter.device || adapter.architecture || adapter.vendor;
  return adapter.software ? `${name} (software)` : name;
};

/** The lines that the change from `before` to `after` is worth, in order. */
export function narrate(before: SessionState, after: SessionState): string[] {
  const lines: string[] = [];
  if (after.run && before.run === null) {
    const { settings, model } = after.run;
    lines.push(
      `Run "${settings.name}" of ${settings.operator}: ${settings.purpose} (model ${model.name}, ${model.licence})`,
    );
  }
  if (after.proposal && after.proposal !== before.proposal) {
    const { rank, verdicts } = after.proposal;
    const chosen = verdicts.find((verdict) => verdict.rank === rank);
    const cost = chosen
      ? `, ${formatBytes(chosen.memoryBytes)} of GPU memory, ${formatBytes(chosen.uploadBytes)} a round`
      : '';
    lines.push(`Rank ${rank} on ${gpuOf(after)}${cost}.`);
    const next = verdicts.find((verdict) => verdict.rank > rank && !verdict.fits);
    if (next) lines.push(`Not rank ${next.rank}: ${next.reason}`);
  }
  // A connection that stays away for many reasons is still one event.
  if (after.error && after.error.code !== before.error?.code) lines.push(after.error.message);
  if (before.error?.retrying && after.error === null) lines.push('Connected again.');
  if (after.note && after.note !== before.note) lines.push(after.note);
  if (after.lease && after.lease.leaseId !== before.lease?.leaseId) {
    const { round, grant, task, start } = after.lease;
    const what = task === null ? 'your own file' : `task ${task}`;
    lines.push(`Round ${round}: granted rank ${grant.rank} on ${what}, start weights ${formatBytes(start.bytes)}.`);
  }
  if (after.stage === 'training' && before.stage !== 'training' && after.progress?.step === 0) {
    lines.push(`Round ${after.lease?.round ?? ''}: training ${after.progress.steps} steps.`);
  }
  if (after.waitingFor && after.waitingFor !== before.waitingFor) lines.push(after.waitingFor);
  if (after.stage === 'paused' && before.stage !== 'paused') lines.push(statusLine(after));
  return lines;
}

/** One line for an event of an evaluator; null where there is nothing to say. */
export function narrateEvaluator(event: EvaluatorEvent): string | null {
  switch (event.kind) {
    case 'connected':
      return `Evaluating run "${event.run.settings.name}".`;
    case 'interrupted':
      return `${event.error.message} Trying again.`;
    case 'measuring':
      return `Version ${event.job.version}: measuring ${event.job.tasks.length} tasks.`;
    case 'measured': {
      const losses = event.results.map(({ task, loss }) => `${task} ${loss.toFixed(3)}`).join(' · ');
      return `Version ${event.version}: ${losses}`;
    }
    case 'refused':
      return `Version ${event.version}: the report was not taken. ${event.error.message}`;
    case 'idle':
      return null;
  }
}
