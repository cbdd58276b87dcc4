// Where the round stands: its phases in a row, the time left, the counts from the leases. The countdown runs on between
// snapshots; everything else is as the server said it last.
import { useSignal } from '@preact/signals';
import type { RoundView, RunView } from '@weft/protocol';
import { useEffect } from 'preact/hooks';
import { countdown } from '../shared/format.ts';
import { stagesOf } from './stages.ts';
import { snapshotAt } from './store.ts';

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
  const buffered = run.settings.mode === 'buffered';
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
          {left === null ? '' : ' · '}
          {buffered && 'buffered · '}goal {round.goal} · minimum {round.minimum}
        </p>
      </div>
      <ol class={`phases${buffered ? ' buffered' : ''}`} data-testid="phase" data-phase={round.phase}>
        {stagesOf(run, round, left).map(({ name, words, state, share }) => (
          <li key={name} class={state} data-stage={name} aria-current={state === 'now' ? 'step' : undefined}>
            <span>{words}</span>
            <i class={`track${share === null ? ' unknown' : ''}`}>
              <i style={{ transform: `scaleX(${share ?? 1})` }} />
            </i>
          </li>
        ))}
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
