// What is wrong now, on every pane of the dashboard: the server's alerts as long as they stand, and what its last start found
// in the data folder. The server decides both; nothing is dismissed here.
import type { Alert } from '@weft/protocol';
import { quantity } from '../shared/format.ts';
import { findingsInWords, WHAT } from './alert-words.ts';
import { findings, overview } from './store.ts';

/** More would push the run off the screen. */
const SHOWN = 3;

const since = (instant: string): string =>
  new Date(instant).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });

/** The live region stays when the list is empty: a screen reader tells of what is added to it. */
export function Alerts() {
  const alerts = overview.value?.alerts ?? [];
  // The latest first: what has just begun is what somebody comes for.
  const latest = [...alerts].reverse();
  return (
    <div aria-live="polite" aria-relevant="additions">
      {latest.length > 0 && (
        <section class="note warning alerts" aria-label="Alerts" data-testid="alerts">
          <ul>{latest.slice(0, SHOWN).map(alertLine)}</ul>
          {latest.length > SHOWN && (
            <details>
              <summary>{quantity(latest.length - SHOWN, 'earlier alert')}</summary>
              <ul>{latest.slice(SHOWN).map(alertLine)}</ul>
            </details>
          )}
        </section>
      )}
    </div>
  );
}

const alertLine = (alert: Alert) => <AlertLine key={`${alert.run ?? ''} ${alert.kind}`} alert={alert} />;

function AlertLine({ alert: { at, run, kind, text } }: { alert: Alert }) {
  const name = overview.value?.runs.find((each) => each.runId === run)?.settings.name ?? run;
  return (
    <li data-testid="alert" data-kind={kind}>
      <strong>{WHAT[kind]}</strong>
      {run !== null && (
        <>
          {' '}
          in <a href={`#run=${run}`}>{name}</a>
        </>
      )}
      . {text}{' '}
      <span class="quiet small">
        Since <time dateTime={at}>{since(at)}</time>.
      </span>
    </li>
  );
}

/** What the server's last start found; nothing where all was whole. */
export function Findings() {
  if (Object.keys(findings.value).length === 0) return null;
  return (
    <details class="findings small" data-testid="findings">
      <summary>The last start repaired files</summary>
      <p>
        It found {findingsInWords(findings.value)} in the data folder. What was done about each, and what it means, is
        in <code>report.json</code> there.
      </p>
    </details>
  );
}
