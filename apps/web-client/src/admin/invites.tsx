// Invites of a run that takes invited volunteers only: make one, show its link this once, list and take back. The link's
// secret is in the fragment, which browsers do not send to any server.
import { signal, useSignal } from '@preact/signals';
import type { Invite, RunView } from '@weft/protocol';
import { useEffect } from 'preact/hooks';
import { Copyable } from '../shared/note.tsx';
import { ScrollRegion } from '../shared/scroll-region.tsx';
import { QrCode } from './qr-code.tsx';
import { ask, busy, may, whyNot } from './store.ts';

const invites = signal<readonly Invite[]>([]);

async function refresh(): Promise<void> {
  const known = await ask('admin:invites', {});
  if (known) invites.value = known.invites;
}

const HOURS: readonly (readonly [hours: number, label: string])[] = [
  [1, 'an hour'],
  [24, 'a day'],
  [168, 'a week'],
  [720, '30 days'],
];

/** How it stands with an invite, for its row. */
function stateOf(invite: Invite, now: number): string {
  if (invite.revokedAt !== null) return 'taken back';
  if (Date.parse(invite.expiresAt) <= now) return 'expired';
  return invite.uses >= invite.maxUses ? 'used up' : 'open';
}

export function Invites({ run }: { run: RunView }) {
  const made = useSignal<string | null>(null);
  const [label, uses, hours] = [useSignal(''), useSignal('20'), useSignal('168')];
  useEffect(() => {
    made.value = null;
    void refresh();
  }, [run.runId, made]);
  const allowed = may('operator');
  const own = invites.value.filter((invite) => invite.runId === null || invite.runId === run.runId);
  const count = Number(uses.value);
  const valid = Number.isInteger(count) && count >= 1 && count <= 1_000_000;
  const create = async () => {
    if (!valid) {
      document.getElementById('invite-uses')?.focus();
      return;
    }
    const wish = { runId: run.runId, label: label.value, maxUses: count, expiresInMs: Number(hours.value) * 3_600_000 };
    const reply = await ask('admin:invite-create', wish);
    if (!reply) return;
    made.value = `${location.origin}/?run=${run.runId}#invite=${reply.token}`;
    await refresh();
  };
  return (
    <section class="invites" aria-label="Invites">
      <h2>Invites</h2>
      <p>
        This run takes volunteers with an invite. An invite is a link; it lets in as many as you say, until it ends.
      </p>
      <form
        aria-label="New invite"
        onSubmit={(event) => {
          event.preventDefault();
          void create();
        }}
      >
        <div class="fields">
          <div class="field">
            <label for="invite-label">For whom</label>
            <input
              id="invite-label"
              type="text"
              maxLength={80}
              autocomplete="off"
              value={label.value}
              aria-describedby="invite-label-hint"
              onInput={(event) => {
                label.value = event.currentTarget.value;
              }}
            />
            <span class="hint" id="invite-label-hint">
              Stands in the list below only.
            </span>
          </div>
          <div class="field">
            <label for="invite-uses">Volunteers</label>
            <input
              id="invite-uses"
              type="text"
              inputMode="numeric"
              autocomplete="off"
              value={uses.value}
              aria-invalid={valid ? undefined : 'true'}
              aria-describedby="invite-uses-hint"
              onInput={(event) => {
                uses.value = event.currentTarget.value;
              }}
            />
            <span class={valid ? 'hint' : 'field-error'} id="invite-uses-hint">
              {valid ? 'Coming back does not count again.' : 'A whole number from 1 to 1,000,000.'}
            </span>
          </div>
          <div class="field">
            <label for="invite-hours">Good for</label>
            <select
              id="invite-hours"
              value={hours.value}
              onChange={(event) => {
                hours.value = event.currentTarget.value;
              }}
            >
              {HOURS.map(([value, words]) => (
                <option key={value} value={String(value)}>
                  {words}
                </option>
              ))}
            </select>
          </div>
        </div>
        <div class="buttons">
          <button
            type="submit"
            class="button primary"
            disabled={!allowed || busy.value !== null}
            title={whyNot('operator')}
          >
            Make invite
          </button>
          {!allowed && <span class="quiet small">{whyNot('operator')}</span>}
        </div>
      </form>
      {made.value !== null && (
        <div class="invite-made" role="status" data-testid="invite-link">
          <div>
            <p>
              <strong>Copy this link now.</strong> It is shown this once; the server keeps its record, not the link.
            </p>
            <Copyable text={made.value} label="Copy link" />
          </div>
          <QrCode text={made.value} />
        </div>
      )}
      {own.length > 0 && (
        <ScrollRegion label="Invites">
          <table>
            <thead>
              <tr>
                <th scope="col">For</th>
                <th scope="col">Came in</th>
                <th scope="col">State</th>
                <th scope="col">Until</th>
                <th scope="col">Made by</th>
                <th scope="col">Change</th>
              </tr>
            </thead>
            <tbody>
              {own.map((invite) => (
                <Row key={invite.inviteId} invite={invite} />
              ))}
            </tbody>
          </table>
        </ScrollRegion>
      )}
    </section>
  );
}

function Row({ invite }: { invite: Invite }) {
  const state = stateOf(invite, Date.now());
  const takeBack = async () => {
    if (await ask('admin:invite-revoke', { inviteId: invite.inviteId })) await refresh();
  };
  return (
    <tr data-testid="invite" data-state={state}>
      <th scope="row">
        {invite.label || 'nobody named'}
        {invite.runId === null && <span class="quiet device-name">every run of this server</span>}
      </th>
      <td>
        {invite.uses} of {invite.maxUses}
      </td>
      <td>{state}</td>
      <td>{new Date(invite.expiresAt).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })}</td>
      <td>{invite.createdBy}</td>
      <td>
        {invite.revokedAt === null && (
          <button
            type="button"
            class="button small danger"
            disabled={!may('operator') || busy.value !== null}
            title={whyNot('operator') ?? 'Whom it let in comes in no more either'}
            onClick={() => void takeBack()}
          >
            Take back
          </button>
        )}
      </td>
    </tr>
  );
}
