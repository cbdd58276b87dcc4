// What an operator may ask of a run now. Stopping for good is asked about first.
import type { RoundView, RunView } from '@weft/protocol';
import { useRef } from 'preact/hooks';
import { busy, type Command, command, may, whyNot } from './store.ts';

export function Commands({ run, round }: { run: RunView; round: RoundView }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const { state } = run;
  if (state === 'completed' || state === 'stopped') return null;
  const ask = (name: Command) => () => void command(name, run.runId);
  const allowed = may('operator');
  const waits = busy.value !== null || !allowed;
  const inRound = state === 'running' && (round.phase === 'selecting' || round.phase === 'training');
  return (
    <div class="buttons">
      {!allowed && <span class="quiet small">{whyNot('operator')}</span>}
      {state === 'running' ? (
        <button type="button" class="button" disabled={waits} onClick={ask('pause')}>
          Pause
        </button>
      ) : (
        <button type="button" class="button primary" disabled={waits} onClick={ask('start')}>
          {state === 'created' ? 'Start' : 'Resume'}
        </button>
      )}
      <button
        type="button"
        class="button"
        disabled={waits || !inRound}
        title="Stop waiting for more and merge what is in, if the minimum is met"
        onClick={ask('close-round')}
      >
        Close round
      </button>
      <button type="button" class="button danger" disabled={!allowed} onClick={() => dialog.current?.showModal()}>
        Stop
      </button>
      <dialog ref={dialog} aria-labelledby="stop-title">
        <form method="dialog" class="dialog-form">
          <h2 id="stop-title">Stop {run.settings.name} for good?</h2>
          <p>
            The round in progress is dropped. The {run.roundsCommitted === 1 ? 'version' : 'versions'} committed so far
            and their adapters stay. A stopped run cannot go on; Pause can.
          </p>
          <div class="buttons">
            <button type="submit" class="button">
              Keep it running
            </button>
            <button type="submit" class="button danger" onClick={ask('stop')}>
              Stop the run
            </button>
          </div>
        </form>
      </dialog>
    </div>
  );
}
