// Where the round stands: its phases in a row, the time left, the counts from the leases. The countdown runs on between
// snapshots; everything else is as the server said it last.
import { useSignal } from '@preact/signals';
import type { Phase, RoundView, RunView } from '@weft/protocol';
import { useEffect } from 'preact/hooks';
import { countdown } from '../shared/format.ts';
import { snapshotAt } from './store.ts';

const PHASES = ['selecting', 'training', 'merging', 'committed'] as const;

/** Milliseconds that a phase may last in all. */
function budgetOf(run: RunView, phase: Phase): number | null {
  const { selectionMs, trainingMs, mergingMs } = run.settings;
  return phase === 'selecting'
    ? selectionMs
    : phase === 'training'
      ? trainingMs
      : phase === 'merging'
        ? mergingMs
        : null;
}

export function PhaseBar({ run, round }: { run: RunView; round: RoundView }) {
  const now = useSignal(performance.now());
  useEffect(() => {
    const timer = setInterval(() => {
      now.value = performance.now();
    }, 500);
    return () => clearInterval(timer);
  }, [now]);
  const paused = run.state !== 'running';
  const passed = paused ? 0 : Math.max(0, now.value - snapshotAt.value);
  const left = round.remainingMs === null ? null : Math.max(0, round.remainingMs - passed);
  const budget = budgetOf(run, round.phase);
  const spent = left === null || budget === null ? 0 : Math.min(1, Math.max(0, 1 - left / budget));
  const at = (PHASES as readonly Phase[]).indexOf(round.phase);
  const counts: [string, number][] = [
    ['here', round.here],
    ['invited', round.leased],
    ['training', round.training],
    ['uploaded', round.uploaded],
    ['dropped', round.dropped],
    ['quarantined', round.quarantined],
  ];
  return (
    <section class="phase" aria-label="Round in progress">
      <div class="phase-head">
        <h2 data-testid="round">Round {round.round}</h2>
        <p class="small quiet">
          <span class="clock">{left === null ? '' : `${countdown(left)} left`}</span>
          {left === null ? '' : ' · '}goal {round.goal} · minimum {round.minimum}
        </p>
      </div>
      <ol class="phases" data-testid="phase" data-phase={round.phase}>
        {PHASES.map((phase, i) => {
          const state = i < at ? 'done' : i === at ? 'now' : 'ahead';
          return (
            <li key={phase} class={state} aria-current={state === 'now' ? 'step' : undefined}>
              <span>{phase}</span>
              <i class="track">
                <i
                  style={{
                    transform: `scaleX(${state === 'done' || (state === 'now' && phase === 'committed') ? 1 : state === 'now' ? spent : 0})`,
                  }}
                />
              </i>
            </li>
          );
        })}
      </ol>
      <p class="reason" data-testid="round-reason">
        {round.phase === 'abandoned' ? 'Abandoned. ' : ''}
        {round.reason ?? (run.state === 'created' ? 'Not started yet.' : '\u00a0')}
      </p>
      <dl class="counts">
        {counts.map(([label, value]) => (
          <div key={label}>
            <dt>{label}</dt>
            <dd data-testid={`count-${label}`}>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
