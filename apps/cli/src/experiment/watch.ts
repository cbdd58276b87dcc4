// An admin's view of one run until it is over, with a line of progress for every change.
import type { RunSnapshot } from '@weft/protocol';
import type { AdminClient } from '../admin-client.ts';
import { CommandError, formatMs, type Io } from '../command.ts';

/** Mean of a record's values; null for none. */
export function meanLoss(losses: Readonly<Record<string, number>> | null): number | null {
  const values = Object.values(losses ?? {});
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}

const isOver = ({ run }: RunSnapshot): boolean => run.state === 'completed' || run.state === 'stopped';

/** Over, and every committed version (with the base) has its held-out loss, where the run asks for one. */
function isMeasured({ run, rounds, baseLoss }: RunSnapshot): boolean {
  if (!run.settings.evaluate) return true;
  return (
    baseLoss !== null && rounds.every(({ outcome, heldOutLoss }) => outcome !== 'committed' || heldOutLoss !== null)
  );
}

function progressLine({ run, round, clients }: RunSnapshot): string {
  const steps = clients.flatMap(({ progress, state, rank }) =>
    state === 'training' && progress ? [`r${rank} ${progress.step}/${progress.steps}`] : [],
  );
  const left = round.remainingMs === null ? '' : ` · ${formatMs(round.remainingMs)} left`;
  const counts = `${round.leased} leased, ${round.uploaded} uploaded`;
  return `round ${round.round} of ${run.settings.rounds} · ${round.phase} · ${counts}${steps.length > 0 ? ` · steps ${steps.join(', ')}` : ''}${left}`;
}

/** Tells of rounds that ended and of losses that came in since `before`. */
function tellNews(before: RunSnapshot | null, now: RunSnapshot, io: Io): void {
  if (now.baseLoss && !before?.baseLoss) io.note(`base model: held-out loss ${meanLoss(now.baseLoss)?.toFixed(3)}`);
  for (const record of now.rounds) {
    const earlier = before?.rounds.find(({ round }) => round === record.round);
    if (!earlier) {
      const merged = record.contributions.filter(({ quarantined }) => quarantined === null);
      const ranks = merged.map(({ rank }) => rank).sort((a, b) => a - b);
      const sparse = record.version <= now.run.settings.sparseRounds;
      const what = sparse ? `${merged.length} sparse updates` : `${merged.length} updates of ranks ${ranks.join(', ')}`;
      const text =
        record.outcome === 'committed'
          ? `merged ${what} in ${formatMs(record.mergeMs)}; training loss ${record.trainLoss?.toFixed(3) ?? '–'}`
          : `abandoned: ${record.reason}`;
      io.note(`round ${record.round}: ${text}`);
    }
    if (record.heldOutLoss && !earlier?.heldOutLoss) {
      io.note(`round ${record.round}: held-out loss ${meanLoss(record.heldOutLoss)?.toFixed(3)}`);
    }
  }
}

/**
 * Follows a run until it is over and measured. Rejects with CommandError 'run-stopped' when it was stopped, or with the
 * signal's reason.
 */
export async function watchUntilOver(admin: AdminClient, runId: string, io: Io): Promise<RunSnapshot> {
  let latest: RunSnapshot | null = null;
  return await new Promise<RunSnapshot>((resolve, reject) => {
    const finish = (outcome: () => void) => {
      stop();
      io.signal.removeEventListener('abort', onAbort);
      outcome();
    };
    const onAbort = () => finish(() => reject(io.signal.reason));
    const look = (snapshot: RunSnapshot) => {
      if (snapshot.run.runId !== runId) return;
      tellNews(latest, snapshot, io);
      latest = snapshot;
      io.status(progressLine(snapshot));
      if (!isOver(snapshot)) return;
      if (snapshot.run.state === 'stopped') {
        finish(() => reject(new CommandError('run-stopped', `The run was stopped. ${snapshot.run.outcome ?? ''}`)));
      } else if (isMeasured(snapshot)) finish(() => resolve(snapshot));
    };
    const stop = admin.onNotice('run:snapshot', look);
    io.signal.addEventListener('abort', onAbort);
    admin.request('admin:watch', { runId }).then(look, (error: unknown) => finish(() => reject(error)));
  });
}
