// What an operator may ask of a run now. Every command but Start opens a dialog first: it says what will happen and takes a
// reason, which stands with the round. Where work is lost, Enter keeps the run as it is.
import { useSignal } from '@preact/signals';
import type { RoundView, RunView } from '@weft/protocol';
import { useRef } from 'preact/hooks';
import { type AskedCommand, COMMANDS, isPossible, minutesIn } from './command-words.ts';
import { busy, command, may, whyNot } from './store.ts';

const ORDER: readonly AskedCommand[] = ['pause', 'extend', 'close-round', 'abort-round', 'stop'];

export function Commands({ run, round }: { run: RunView; round: RoundView }) {
  const { state } = run;
  if (state === 'completed' || state === 'stopped') return null;
  const allowed = may('operator');
  const waits = busy.value !== null || !allowed;
  const asked = ORDER.filter((name) => name !== 'pause' || state === 'running');
  return (
    <div class="commands">
      {!allowed && <span class="quiet small">{whyNot('operator')}</span>}
      <div class="buttons">
        {state !== 'running' && (
          <button
            type="button"
            class="button primary"
            disabled={waits}
            onClick={() => void command('start', { runId: run.runId })}
          >
            {state === 'created' ? 'Start' : 'Resume'}
          </button>
        )}
        {asked.map((name) => (
          <Asked key={name} name={name} run={run} round={round} allowed={allowed} />
        ))}
      </div>
    </div>
  );
}

interface AskedProps {
  readonly name: AskedCommand;
  readonly run: RunView;
  readonly round: RoundView;
  readonly allowed: boolean;
}

/** A command's button, and the dialog it opens. */
function Asked({ name, run, round, allowed }: AskedProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const minutesField = useRef<HTMLInputElement>(null);
  const reason = useSignal('');
  const minutes = useSignal('5');
  const fault = useSignal<string | null>(null);
  const { label, title, about, confirm, keep, losesWork } = COMMANDS[name];
  const possible = isPossible(name, run, round);
  const ids = { title: `${name}-title`, about: `${name}-about`, fault: `${name}-fault` };

  const send = async (event: SubmitEvent) => {
    event.preventDefault();
    // Enter is the first submit button's: the one that keeps, where work would be lost.
    if (event.submitter?.getAttribute('value') === 'keep') {
      dialog.current?.close();
      return;
    }
    const ms = name === 'extend' ? minutesIn(minutes.value) : null;
    if (typeof ms === 'string') {
      fault.value = ms;
      minutesField.current?.focus();
      return;
    }
    fault.value = null;
    dialog.current?.close();
    const wish = { runId: run.runId, reason: reason.value.trim() || null };
    const done = name === 'extend' ? await command(name, { ...wish, ms: ms ?? 0 }) : await command(name, wish);
    // After a refusal what was typed is still there.
    if (done) reason.value = '';
  };

  return (
    <>
      <button
        type="button"
        class={`button${losesWork ? ' danger' : ''}`}
        disabled={!allowed || !possible}
        title={COMMANDS[name].hint}
        onClick={() => dialog.current?.showModal()}
      >
        {label}
      </button>
      <dialog ref={dialog} aria-labelledby={ids.title} aria-describedby={ids.about} data-testid={`dialog-${name}`}>
        <form noValidate class="dialog-form" onSubmit={(event) => void send(event)}>
          <h2 id={ids.title}>{title(run, round)}</h2>
          <p id={ids.about}>{about(run, round)}</p>
          {name === 'extend' && (
            <div class="field">
              <label for={`${name}-minutes`}>Minutes</label>
              <input
                ref={minutesField}
                id={`${name}-minutes`}
                class="minutes"
                type="text"
                inputMode="decimal"
                autocomplete="off"
                value={minutes.value}
                aria-invalid={fault.value === null ? undefined : 'true'}
                aria-describedby={fault.value === null ? undefined : ids.fault}
                onInput={(event) => {
                  minutes.value = event.currentTarget.value;
                }}
              />
              {fault.value !== null && (
                <span class="field-error" id={ids.fault} role="status">
                  {fault.value}
                </span>
              )}
            </div>
          )}
          <div class="field">
            <label for={`${name}-reason`}>Reason (may be left empty)</label>
            <input
              id={`${name}-reason`}
              type="text"
              maxLength={200}
              autocomplete="off"
              value={reason.value}
              aria-describedby={`${name}-reason-hint`}
              onInput={(event) => {
                reason.value = event.currentTarget.value;
              }}
            />
            <span class="hint" id={`${name}-reason-hint`}>
              One sentence. Everybody who sees the run can read it, and it stays with the round.
            </span>
          </div>
          {!possible && (
            <p class="field-error" role="status">
              The round has moved on meanwhile; there is nothing left to do.
            </p>
          )}
          <div class="buttons">
            <button
              type={losesWork ? 'submit' : 'button'}
              class="button"
              value="keep"
              onClick={losesWork ? undefined : () => dialog.current?.close()}
            >
              {keep}
            </button>
            <button
              type="submit"
              class={`button ${losesWork ? 'danger' : 'primary'}`}
              value="do"
              disabled={!possible || busy.value !== null}
            >
              {confirm}
            </button>
          </div>
        </form>
      </dialog>
    </>
  );
}
