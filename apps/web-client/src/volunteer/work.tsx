// What goes on: one line of status, one bar, the loss of this device, what it has added up to.

import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { Chart } from '../shared/chart.tsx';
import type { ChartSpec } from '../shared/chart-spec.ts';
import { bytes, clockTime, loss, quantity } from '../shared/format.ts';
import type { TabState } from '../worker/api.ts';
import { SaveReceipts, TakeBack } from './rights.tsx';
import { helping, selfPaused } from './tab-link.ts';
import { progressOf, splitStatus, statusText, waitEnd } from './words.ts';

const CURVE_HEIGHT = 120;

export function Work({ state }: { state: TabState | null }) {
  const started =
    helping.value || (state !== null && (state.totals.rounds > 0 || state.losses.length > 0 || state.outcome !== null));
  const text = state ? statusText(state, helping.value) : 'Looking for a GPU';
  const { steady, changing } = splitStatus(text);
  const { of, share } = state ? progressOf(state) : { of: 'Download', share: 0 };
  const percent = Math.round(100 * Math.min(1, share));
  return (
    <section class="work" aria-label="Progress">
      <p class="status" data-testid="status" data-stage={state?.stage ?? 'opening'}>
        <span role="status">{steady}</span>
        <span>{changing}</span>
        {state?.stage === 'waiting' && state.phaseEndsAt !== null && <WaitEnd state={state} />}
      </p>
      <div class="bar" role="progressbar" aria-label={of} aria-valuemin={0} aria-valuemax={100} aria-valuenow={percent}>
        <i style={{ transform: `scaleX(${percent / 100})` }} />
      </div>
      {state && <Assignment state={state} />}
      {selfPaused.value && <p class="note warning">{selfPaused.value}</p>}
      {state?.storageNote && <p class="small quiet">{state.storageNote}</p>}
      {state && started && (
        <>
          <Curve state={state} />
          <Totals state={state} />
          {state.note && (
            <p class="small quiet" data-testid="note">
              {state.note}
            </p>
          )}
        </>
      )}
    </section>
  );
}

function WaitEnd({ state }: { state: TabState }) {
  const now = useSignal(Date.now());
  useEffect(() => {
    const timer = setInterval(() => {
      now.value = Date.now();
    }, 1_000);
    return () => clearInterval(timer);
  }, [now]);
  return <span class="quiet">{waitEnd(state, now.value)}</span>;
}

/** What this device was given to do in this round. */
function Assignment({ state: { lease, run, data } }: { state: TabState }) {
  if (!lease) return null;
  const task = run?.tasks.find((each) => each.name === lease.task);
  const text = data.own ? 'your own file' : (task?.title ?? lease.task);
  return (
    <p
      class="small quiet"
      data-testid="assignment"
      data-round={lease.round}
      data-rank={lease.rank}
      data-task={lease.task ?? ''}
    >
      Round {lease.round} · {lease.sparse ? 'sparse update' : `rank ${lease.rank}`} · {text} · from version{' '}
      {lease.startVersion}
    </p>
  );
}

function Curve({ state }: { state: TabState }) {
  const { losses } = state;
  const latest = losses.at(-1);
  const spec: ChartSpec = {
    title: 'Loss on this device',
    x: losses.map((_, i) => i + 1),
    xLabel: 'step',
    yLabel: 'loss',
    compact: true,
    format: (value) => value.toFixed(1),
    series: [{ label: 'this device', colour: '--accent', width: 1.5, values: losses }],
  };
  return (
    <figure class="curve">
      <figcaption class="small">
        <span>Loss on this device, nats per token</span>
        <span data-testid="loss">{loss(latest ?? null)}</span>
      </figcaption>
      {losses.length < 2 ? (
        <p class="figure-empty" style={{ height: `${CURVE_HEIGHT}px` }}>
          The loss of each step appears here.
        </p>
      ) : (
        <Chart spec={spec} height={CURVE_HEIGHT} />
      )}
    </figure>
  );
}

function Totals({ state }: { state: TabState }) {
  const { totals, receipts } = state;
  const line = `${quantity(totals.rounds, 'round')} helped · ${quantity(totals.targetTokens, 'token')}`;
  if (receipts.length === 0) {
    return (
      <p class="totals small" data-testid="totals">
        {line}
      </p>
    );
  }
  return (
    <details class="totals">
      <summary class="tail" data-testid="see-receipts">
        <span class="plain" data-testid="totals">
          {line} · {bytes(totals.uploadBytes)} sent
        </span>{' '}
        receipts
      </summary>
      <p class="small">
        The server has these updates on its disk and has signed for them. Each will be merged, or set aside with a
        reason; none is lost.
      </p>
      <ul data-testid="receipts">
        {[...receipts].reverse().map((receipt) => (
          <li key={receipt.receiptId}>
            <strong>Round {receipt.round}</strong> · {bytes(receipt.bytes)} · {quantity(receipt.targetTokens, 'token')}{' '}
            · {clockTime(receipt.acceptedAt)}
            <span class="mono quiet">
              receipt {receipt.receiptId}
              <br />
              SHA-256 {receipt.sha256}
            </span>
            <TakeBack state={state} receipt={receipt} />
          </li>
        ))}
      </ul>
      <SaveReceipts />
    </details>
  );
}
