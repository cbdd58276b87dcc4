// Accounts and sessions, for owners: who may sign in as what, who is signed in now. The server decides; every change is
// asked of it and the lists are fetched again.
import { signal, useSignal } from '@preact/signals';
import { type Account, accountNameSchema, passwordSchema, ROLES, type Role, type SessionInfo } from '@weft/protocol';
import { useEffect, useRef } from 'preact/hooks';
import { ScrollRegion } from '../shared/scroll-region.tsx';
import { actor, ask, busy } from './store.ts';

const accounts = signal<readonly Account[]>([]);
const sessions = signal<readonly SessionInfo[]>([]);

const WHAT: Record<Role, string> = {
  viewer: 'Watches runs, fetches adapters.',
  operator: 'Also creates and steers runs, makes invites.',
  owner: 'Also manages accounts.',
};

async function refresh(): Promise<void> {
  const [known, open] = [await ask('admin:accounts', {}), await ask('admin:sessions', {})];
  if (known) accounts.value = known.accounts;
  if (open) sessions.value = open.sessions;
}

const when = (instant: string): string =>
  new Date(instant).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });

export function Accounts() {
  useEffect(() => void refresh(), []);
  return (
    <article class="run" aria-label="Accounts">
      <header class="run-head">
        <div>
          <h1>Accounts</h1>
          <p class="quiet small">Who may sign in to this dashboard, and who is signed in.</p>
        </div>
      </header>
      <AccountList />
      <AddAccount />
      <SessionList />
    </article>
  );
}

function AccountList() {
  return (
    <section class="devices" aria-label="List of accounts">
      <h2>Accounts</h2>
      {accounts.value.length === 0 ? (
        <p class="quiet">None yet: everybody uses the server’s token. Add an account for each person below.</p>
      ) : (
        <ScrollRegion label="Accounts">
          <table>
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">Role</th>
                <th scope="col">Since</th>
                <th scope="col">Signed in</th>
                <th scope="col">Change</th>
              </tr>
            </thead>
            <tbody>
              {accounts.value.map((account) => (
                <AccountRow key={account.name} account={account} />
              ))}
            </tbody>
          </table>
        </ScrollRegion>
      )}
    </section>
  );
}

function AccountRow({ account: { name, role, createdAt, sessions: open } }: { account: Account }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const change = async (work: Promise<unknown>): Promise<boolean> => {
    // After a refusal its words stay; fetching again would take them away.
    const done = (await work) !== null;
    if (done) await refresh();
    return done;
  };
  return (
    <tr data-testid="account" data-account={name}>
      <th scope="row">{name}</th>
      <td>
        <select
          class="compact"
          aria-label={`Role of ${name}`}
          disabled={busy.value !== null}
          value={role}
          onChange={async ({ currentTarget }) => {
            const wish = { name, role: currentTarget.value as Role };
            if (!(await change(ask('admin:account-role', wish)))) currentTarget.value = role;
          }}
        >
          {ROLES.map((each) => (
            <option key={each} value={each}>
              {each}
            </option>
          ))}
        </select>
      </td>
      <td>{when(createdAt)}</td>
      <td>{open === 0 ? 'no' : open === 1 ? 'once' : `${open} times`}</td>
      <td>
        <div class="buttons">
          <button
            type="button"
            class="button small"
            disabled={open === 0 || busy.value !== null}
            onClick={() => void change(ask('admin:session-revoke', { sessionId: null, account: name }))}
          >
            Sign {name} out
          </button>
          <button type="button" class="button small danger" onClick={() => dialog.current?.showModal()}>
            Remove {name}
          </button>
        </div>
        <dialog ref={dialog} aria-labelledby={`remove-${name}`}>
          <form method="dialog" class="dialog-form">
            <h2 id={`remove-${name}`}>Remove the account {name}?</h2>
            <p>Its sessions end now. What it did stays in the runs’ stories under its name.</p>
            <div class="buttons">
              <button type="submit" class="button">
                Keep it
              </button>
              <button
                type="submit"
                class="button danger"
                onClick={() => void change(ask('admin:account-remove', { name }))}
              >
                Remove it
              </button>
            </div>
          </form>
        </dialog>
      </td>
    </tr>
  );
}

function AddAccount() {
  const [name, password, role] = [useSignal(''), useSignal(''), useSignal<Role>('operator')];
  const fault = useSignal<{ field: 'name' | 'password'; text: string } | null>(null);
  const add = async () => {
    const wrongName = accountNameSchema.safeParse(name.value).error?.issues[0]?.message;
    const wrongPassword = passwordSchema.safeParse(password.value).error?.issues[0]?.message;
    fault.value = wrongName
      ? { field: 'name', text: `It ${wrongName}.` }
      : wrongPassword
        ? { field: 'password', text: `It ${wrongPassword}.` }
        : null;
    if (fault.value) {
      document.getElementById(`new-${fault.value.field}`)?.focus();
      return;
    }
    const added = await ask('admin:account-add', { name: name.value, role: role.value, password: password.value });
    if (!added) return;
    name.value = '';
    password.value = '';
    await refresh();
  };
  const field = (key: 'name' | 'password', label: string, type: string, value: typeof name, hint: string) => (
    <div class="field">
      <label for={`new-${key}`}>{label}</label>
      <input
        id={`new-${key}`}
        type={type}
        autocomplete={key === 'password' ? 'new-password' : 'off'}
        autocapitalize="none"
        value={value.value}
        aria-invalid={fault.value?.field === key ? 'true' : undefined}
        aria-describedby={`new-${key}-hint`}
        onInput={(event) => {
          value.value = event.currentTarget.value;
        }}
      />
      <span class={fault.value?.field === key ? 'field-error' : 'hint'} id={`new-${key}-hint`}>
        {fault.value?.field === key ? fault.value.text : hint}
      </span>
    </div>
  );
  return (
    <section class="devices" aria-label="New account">
      <h2>New account</h2>
      <form
        aria-label="New account"
        onSubmit={(event) => {
          event.preventDefault();
          void add();
        }}
      >
        <div class="fields">
          {field('name', 'Name', 'text', name, 'Lower-case letters, digits, ".", "_", "-".')}
          {field(
            'password',
            'Password',
            'password',
            password,
            'At least 10 characters. Tell it to its owner in person.',
          )}
          <div class="field">
            <label for="new-role">Role</label>
            <select
              id="new-role"
              aria-describedby="new-role-hint"
              value={role.value}
              onChange={(event) => {
                role.value = event.currentTarget.value as Role;
              }}
            >
              {ROLES.map((each) => (
                <option key={each} value={each}>
                  {each}
                </option>
              ))}
            </select>
            <span class="hint" id="new-role-hint">
              {WHAT[role.value]}
            </span>
          </div>
        </div>
        <div class="buttons">
          <button type="submit" class="button primary" disabled={busy.value !== null}>
            Add account
          </button>
        </div>
      </form>
    </section>
  );
}

function SessionList() {
  const end = async (sessionId: string) => {
    if (await ask('admin:session-revoke', { sessionId, account: null })) await refresh();
  };
  return (
    <section class="devices" aria-label="Sessions">
      <h2>Signed in now</h2>
      {sessions.value.length === 0 ? (
        <p class="quiet">
          Nobody with an account. {actor.value?.sessionId === null ? 'You hold the server’s token.' : ''}
        </p>
      ) : (
        <ScrollRegion label="Sessions">
          <table>
            <thead>
              <tr>
                <th scope="col">Account</th>
                <th scope="col">Since</th>
                <th scope="col">Last used</th>
                <th scope="col">Ends</th>
                <th scope="col">Change</th>
              </tr>
            </thead>
            <tbody>
              {sessions.value.map((session) => (
                <tr key={session.sessionId} data-testid="session">
                  <th scope="row">
                    {session.account}
                    {session.current ? ' (you, here)' : ''}
                  </th>
                  <td>{when(session.createdAt)}</td>
                  <td>{when(session.lastUsedAt)}</td>
                  <td>{when(session.expiresAt)}</td>
                  <td>
                    <button
                      type="button"
                      class="button small"
                      disabled={busy.value !== null}
                      onClick={() => void end(session.sessionId)}
                    >
                      End session
                    </button>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </ScrollRegion>
      )}
    </section>
  );
}
