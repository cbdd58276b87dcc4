// The frame of the dashboard: sign-in, or a rail of runs with one run, or the form for a new one.
import type { RunView } from '@weft/protocol';
import { ProblemNote } from '../shared/note.tsx';
import { ThemeSwitch } from '../shared/theme.tsx';
import { Accounts } from './accounts.tsx';
import { Alerts, Findings } from './alerts.tsx';
import { NewRun } from './new-run.tsx';
import { RunPane } from './run-pane.tsx';
import { SignIn } from './sign-in.tsx';
import { actor, go, line, may, overview, place, problem, signedIn, signOut, snapshot, whyNot } from './store.ts';

export function App() {
  if (signedIn.value !== 'yes') return <SignIn />;
  return (
    <div class="admin">
      <Rail />
      <main>
        {line.value !== 'connected' && (
          <p class="note warning" role="status">
            The server does not answer; trying again. What is shown may be old.
          </p>
        )}
        {problem.value && <ProblemNote problem={problem.value} />}
        <Alerts />
        <Pane />
      </main>
    </div>
  );
}

function Pane() {
  const { value } = place;
  if (value.kind === 'new') return may('operator') ? <NewRun /> : <p class="quiet">{whyNot('operator')}</p>;
  if (value.kind === 'accounts') return may('owner') ? <Accounts /> : <p class="quiet">{whyNot('owner')}</p>;
  if (value.kind === 'run') {
    if (snapshot.value) return <RunPane snapshot={snapshot.value} />;
    return problem.value ? null : <p class="quiet">Fetching the run…</p>;
  }
  return <NoRuns />;
}

function NoRuns() {
  return (
    <section class="teach">
      <h1>No run yet</h1>
      <p>
        A run trains one adapter for {overview.value?.model.name ?? 'the served model'} in rounds: volunteers open an
        invite link, their tabs train on the tasks you choose, the server merges what they send, and you download the
        result.
      </p>
      <button type="button" class="button primary" disabled={!may('operator')} onClick={() => go({ kind: 'new' })}>
        Create the first run
      </button>
      {!may('operator') && <p class="quiet small">{whyNot('operator')}</p>}
    </section>
  );
}

const DOT: Record<RunView['state'], string> = {
  created: '',
  running: 'on',
  paused: 'waiting',
  completed: '',
  stopped: '',
};

function Rail() {
  const { value } = place;
  const alerts = overview.value?.alerts ?? [];
  return (
    <nav class="rail" aria-label="Runs">
      <header>
        <strong>weft</strong>
        <ThemeSwitch />
      </header>
      <ul>
        {[...(overview.value?.runs ?? [])].reverse().map((run) => (
          <li key={run.runId}>
            <a
              href={`#run=${run.runId}`}
              aria-current={value.kind === 'run' && value.runId === run.runId ? 'page' : undefined}
            >
              <i class={`dot ${DOT[run.state]}`} aria-hidden="true" />
              <span>
                {run.settings.name}
                <small>
                  {run.state} · {run.roundsCommitted} of {run.settings.rounds} rounds
                </small>
                {alerts.some((alert) => alert.run === run.runId) && <small class="alerted">alert</small>}
              </span>
            </a>
          </li>
        ))}
        {may('operator') && (
          <li>
            <a href="#new" aria-current={value.kind === 'new' ? 'page' : undefined}>
              <i class="plus" aria-hidden="true" />
              <span>New run</span>
            </a>
          </li>
        )}
        {may('owner') && (
          <li>
            <a href="#accounts" aria-current={value.kind === 'accounts' ? 'page' : undefined}>
              <i class="dot" aria-hidden="true" />
              <span>Accounts</span>
            </a>
          </li>
        )}
      </ul>
      <Findings />
      {actor.value && (
        <p class="small quiet" data-testid="who">
          Signed in as <strong>{actor.value.name}</strong>, {actor.value.role}
        </p>
      )}
      <button type="button" class="button quiet small" onClick={() => void signOut()}>
        Sign out
      </button>
    </nav>
  );
}
