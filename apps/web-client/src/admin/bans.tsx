// Banning a device and lifting a ban, from its row or from the list of bans; a ban asks for a reason first, since its device is
// told it.
import { useSignal } from '@preact/signals';
import type { Ban, ClientRow } from '@weft/protocol';
import { useRef } from 'preact/hooks';
import { ago } from '../shared/format.ts';
import { clientLabel } from './device-table.ts';
import { ban, bans, busy, unban } from './store.ts';

/** The last cell of a device's row. */
export function BanAction({ row }: { row: ClientRow }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const reason = useSignal('');
  const address = useSignal(false);
  const label = clientLabel(row);
  const waits = busy.value !== null;
  if (row.state === 'banned') {
    return (
      <button
        type="button"
        class="button small"
        aria-label={`Unban ${label}`}
        disabled={waits}
        onClick={() => void unban(row.clientId)}
      >
        Unban
      </button>
    );
  }
  const title = `ban-${row.clientId}`;
  return (
    <>
      <button
        type="button"
        class="button small"
        aria-label={`Ban ${label}`}
        disabled={waits}
        onClick={() => dialog.current?.showModal()}
      >
        Ban
      </button>
      <dialog ref={dialog} aria-labelledby={title}>
        <form
          method="dialog"
          class="dialog-form"
          onSubmit={(event) => {
            // Enter in the reason is the first button's, which keeps the device: banning takes its own press.
            if (event.submitter?.getAttribute('value') !== 'ban') return;
            void ban({ clientId: row.clientId, reason: reason.value.trim(), address: address.value });
          }}
        >
          <h2 id={title}>Ban {label} from this server?</h2>
          <p>
            It loses its place, its update of the round in progress is left out of the merge, and it may join no run
            until the ban is lifted. It is told your reason.
          </p>
          <label>
            Reason
            <input
              type="text"
              maxLength={300}
              value={reason.value}
              onInput={(event) => {
                reason.value = event.currentTarget.value;
              }}
            />
          </label>
          <label class="check">
            <input
              type="checkbox"
              checked={address.value}
              onChange={(event) => {
                address.value = event.currentTarget.checked;
              }}
            />{' '}
            its network address too, which others may share
          </label>
          <div class="buttons">
            <button type="submit" class="button" value="keep">
              Keep it
            </button>
            <button type="submit" class="button danger" value="ban" disabled={reason.value.trim() === ''}>
              Ban
            </button>
          </div>
        </form>
      </dialog>
    </>
  );
}

/** Everybody who is banned, those who have not been here lately included. */
export function BanList() {
  const list = bans.value;
  if (list.length === 0) return null;
  return (
    <details class="bans" data-testid="bans">
      <summary>{list.length === 1 ? '1 banned device' : `${list.length} banned devices`}</summary>
      <ul class="small">
        {list.map((each) => (
          <BanLine key={each.clientId} entry={each} />
        ))}
      </ul>
    </details>
  );
}

function BanLine({ entry }: { entry: Ban }) {
  const label = clientLabel(entry);
  return (
    <li>
      <strong>{label}</strong>
      {entry.address === null ? '' : ` and address ${entry.address}`}: {entry.reason}{' '}
      <span class="quiet">{ago(Date.now() - Date.parse(entry.at))}</span>{' '}
      <button
        type="button"
        class="button small"
        aria-label={`Unban ${label}`}
        disabled={busy.value !== null}
        onClick={() => void unban(entry.clientId)}
      >
        Unban
      </button>
    </li>
  );
}
