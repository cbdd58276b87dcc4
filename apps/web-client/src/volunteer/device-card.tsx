// What this device can carry, and why not more.
import { bytes } from '../shared/format.ts';
import { RankChip } from '../shared/rank.tsx';
import type { TabState } from '../worker/api.ts';
import { browserName, rankReason } from './words.ts';

function headline(state: TabState | null): string {
  if (!state) return 'Looking for a GPU';
  if (state.asksToDownload) return 'Not measured yet';
  switch (state.stage) {
    case 'failed':
      return 'Not ready';
    case 'connecting':
      return 'GPU found';
    case 'downloading':
      return 'Fetching the model to measure with';
    case 'preparing':
      return 'Measuring your GPU';
    default:
      return 'Ready';
  }
}

export function DeviceCard({ state }: { state: TabState | null }) {
  const rank = state?.rank ?? null;
  const measured = rank !== null && state?.stage !== 'failed' && state?.stage !== 'preparing';
  return (
    <section class="card device" aria-label="Your device">
      <div class="device-head">
        <p>
          <strong data-testid="device-state">{measured ? 'Ready' : headline(state)}</strong>
          {measured && (
            <>
              {' '}
              <RankChip rank={rank} testId="rank" />
            </>
          )}
        </p>
        <p class="quiet small" data-testid="device-name">
          {state?.device ? `${state.device.label} · ${browserName(navigator.userAgent)}` : '\u00a0'}
        </p>
      </div>
      {measured ? (
        <details>
          <summary class="tail" data-testid="why">
            <span class="quiet" data-testid="rank-reason">
              {rankReason(rank, state?.verdicts ?? [])}
            </span>{' '}
            why
          </summary>
          {state && <Verdicts state={state} />}
        </details>
      ) : (
        <p class="placeholder quiet small">
          {state?.asksToDownload
            ? `Measuring needs the model: a download of ${bytes(state.missingBytes ?? 0)}, once.`
            : 'The rank says how large a part your device trains.'}
        </p>
      )}
    </section>
  );
}

function Verdicts({ state }: { state: TabState }) {
  return (
    <>
      {state.device?.software && (
        <p class="small">
          This browser offers a software GPU, which runs on the processor: slow, but what it trains counts the same.
        </p>
      )}
      <table data-testid="verdicts">
        <thead>
          <tr>
            <th scope="col">Rank</th>
            <th scope="col">Fits</th>
            <th scope="col" class="numeric">
              GPU memory
            </th>
            <th scope="col" class="numeric">
              Upload
            </th>
            <th scope="col">Why</th>
          </tr>
        </thead>
        <tbody>
          {state.verdicts.map((verdict) => (
            <tr key={verdict.rank} class={verdict.rank === state.rank ? 'chosen' : ''}>
              <th scope="row">
                <RankChip rank={verdict.rank} />
              </th>
              <td>{verdict.fits ? 'yes' : 'no'}</td>
              <td class="numeric">{bytes(verdict.memoryBytes)}</td>
              <td class="numeric">{bytes(verdict.uploadBytes)}</td>
              <td>
                {verdict.fits ? (verdict.rank === state.rank ? 'The largest that fits.' : 'Fits.') : verdict.reason}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}
