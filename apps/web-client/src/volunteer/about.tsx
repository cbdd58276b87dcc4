// Who asks for help, and for what.
import { count } from '../shared/format.ts';
import type { RunFacts, TabState } from '../worker/api.ts';
import { shortLicence } from './words.ts';

export function Header({ state, closed }: { state: TabState | null; closed: boolean }) {
  const run = state?.run ?? null;
  const round = state?.round ?? null;
  if (run && document.title !== `${run.name} · Weft`) document.title = `${run.name} · Weft`;
  const line = lineOf(state);
  return (
    <header class="top">
      <h1>
        <span class="quiet">weft{closed ? '' : ' · '}</span>
        <span data-testid="run-name">{closed ? '' : (run?.name ?? '…')}</span>
      </h1>
      <p class="small">
        {round && (
          <>
            <span data-testid="here">{count(round.here)} here</span>
            <span aria-hidden="true"> · </span>
            <span data-testid="round">round {round.round}</span>
            <span aria-hidden="true"> · </span>
          </>
        )}
        {!closed && <i class={`dot ${line.dot}`} aria-hidden="true" />}
        <span data-testid="line">{closed ? '' : line.text}</span>
      </p>
    </header>
  );
}

function lineOf(state: TabState | null): { dot: string; text: string } {
  if (!state || (state.stage === 'connecting' && !state.run)) return { dot: '', text: 'connecting' };
  if (!state.connected) return { dot: 'off', text: 'reconnecting' };
  switch (state.run?.state) {
    case 'running':
      return { dot: 'on', text: 'live' };
    case 'paused':
      return { dot: 'waiting', text: 'run paused' };
    case 'completed':
    case 'stopped':
      return { dot: '', text: 'ended' };
    default:
      return { dot: 'waiting', text: 'not started' };
  }
}

/** `closed`: nothing can run here, so the server is not asked. */
export function About({ run, closed }: { run: RunFacts | null; closed: boolean }) {
  return (
    <section class="about" aria-label="What this is">
      <p class="purpose" data-testid="purpose">
        {closed ? 'Lend a little of your GPU to train a language model.' : (run?.purpose ?? '\u00a0')}
      </p>
      {run ? (
        <details>
          <summary class="tail" data-testid="what-for">
            <span class="quiet">
              Run by {run.operator} · model {run.model.name} ({shortLicence(run.model.licence)}) ·{' '}
            </span>
            what is it for?
          </summary>
          <div class="explanation">
            <p>
              This page lends your GPU, for as long as you like, to train a small part (a LoRA adapter) of{' '}
              {run.model.name}, a language model of {count(run.model.parameters)} parameters. Many devices train the
              same adapter at sizes that suit them; the server merges their updates in {run.rounds} rounds, and{' '}
              {run.operator} receives the result.
            </p>
            <p>Licence of the model: {run.model.licence}</p>
            <p>The sample tasks of this run:</p>
            <ul>
              {run.tasks.map((task) => (
                <li key={task.name}>
                  <strong>{task.title}</strong>
                  {task.definition && <>: {task.definition}</>}
                  {task.licence && <span class="quiet"> ({task.licence})</span>}
                </li>
              ))}
            </ul>
          </div>
        </details>
      ) : closed ? null : (
        <p class="placeholder quiet small">Asking the server what it trains…</p>
      )}
    </section>
  );
}
