// What a volunteer may ask of its own work: receipts as a file, an update taken back, being forgotten. The last is asked about
// first, and says afterwards what stays.
import { signal, useSignal } from '@preact/signals';
import type { ForgetReply, Receipt } from '@weft/protocol';
import { useRef } from 'preact/hooks';
import { quantity } from '../shared/format.ts';
import { saveText } from '../shared/save-text.ts';
import type { TabState } from '../worker/api.ts';
import { api, forgetLimits } from './tab-link.ts';

/** What the server answered; the page has nothing more to do then. */
export const forgotten = signal<ForgetReply | null>(null);
/** Why the last wish about one's own work was not fulfilled. */
const refusal = signal<string | null>(null);
const waits = signal(false);

async function wish<T>(
  work: () => Promise<{ ok: true; value: T } | { ok: false; message: string }>,
  then: (value: T) => void,
): Promise<void> {
  waits.value = true;
  refusal.value = null;
  try {
    const answer = await work();
    if (answer.ok) then(answer.value);
    else refusal.value = answer.message;
  } catch (error) {
    refusal.value = error instanceof Error ? error.message : String(error);
  } finally {
    waits.value = false;
  }
}

export function Refusal() {
  return refusal.value === null ? null : (
    <p class="note warning" role="alert" data-testid="refusal">
      {refusal.value}
    </p>
  );
}

export function SaveReceipts() {
  return (
    <p class="small">
      <button
        type="button"
        class="button small"
        disabled={waits.value}
        onClick={() =>
          void wish(
            () => api().receiptsFile(),
            (text) => saveText(text, 'weft-receipts.json', 'application/json'),
          )
        }
      >
        Download receipts
      </button>{' '}
      <span class="quiet">
        One file with all receipts this browser keeps; <span class="mono">weft verify</span> checks it.
      </span>
    </p>
  );
}

/** Whether the merge of the receipt's round has not begun, as far as this page knows. */
const canTakeBack = ({ round, phase }: { round: number; phase: string }, receipt: Receipt): boolean =>
  round === receipt.round && (phase === 'selecting' || phase === 'training');

export function TakeBack({ state, receipt }: { state: TabState; receipt: Receipt }) {
  if (!state.round || !canTakeBack(state.round, receipt)) return null;
  return (
    <button
      type="button"
      class="button small"
      aria-label={`Take back the update of round ${receipt.round}`}
      disabled={waits.value}
      onClick={() =>
        void wish(
          () => api().withdraw(receipt.receiptId),
          () => undefined,
        )
      }
    >
      Take back
    </button>
  );
}

export function ForgetMe({ state }: { state: TabState | null }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const asking = useSignal(false);
  if (!state?.clientId || !state.run) return null;
  return (
    <section class="rights" aria-label="Your rights">
      <p class="small quiet">
        <button
          type="button"
          class="button small"
          onClick={() => {
            asking.value = true;
            dialog.current?.showModal();
          }}
        >
          Forget me
        </button>{' '}
        removes what the server and this browser know of you.
      </p>
      <Refusal />
      <dialog ref={dialog} aria-labelledby="forget-title">
        <form method="dialog" class="dialog-form">
          <h2 id="forget-title">Be forgotten in {state.run.name}?</h2>
          <p>
            The server stops your work, takes back what is not merged, and deletes your uploads, name, device and key.
            This browser deletes its key for this run, its receipts and the downloaded files.
          </p>
          <p>
            What was merged stays merged, and the records of past rounds keep your counts without a name. There is no
            way back.
          </p>
          <div class="buttons">
            <button type="submit" class="button">
              Keep me
            </button>
            <button
              type="submit"
              class="button danger"
              disabled={waits.value}
              onClick={() =>
                void wish(
                  () => api().forget(),
                  (reply) => {
                    forgetLimits();
                    forgotten.value = reply;
                  },
                )
              }
            >
              Forget me
            </button>
          </div>
        </form>
      </dialog>
    </section>
  );
}

export function Forgotten({ reply }: { reply: ForgetReply }) {
  return (
    <section class="forgotten" aria-label="You were forgotten" data-testid="forgotten">
      <h2 role="status">You were forgotten</h2>
      <p>
        {quantity(reply.withdrawn, 'update')} taken back, {quantity(reply.deleted, 'upload')} deleted on the server;
        key, receipts and files deleted here. What stays:
      </p>
      <ul class="small">
        {reply.remains.map((line) => (
          <li key={line}>{line}</li>
        ))}
      </ul>
      <button type="button" class="button" onClick={() => location.reload()}>
        Start afresh
      </button>
    </section>
  );
}
