// Signing in with an account, or with the token the server printed. What is kept stays in this tab's session storage; the
// way chosen last is remembered, so that a fresh server asks for its token and a colleague for the account.
import { useSignal } from '@preact/signals';
import { ProblemNote } from '../shared/note.tsx';
import { ThemeSwitch } from '../shared/theme.tsx';
import { line, problem, signedIn, signIn, signInAs } from './store.ts';

const WAY_KEY = 'weft-sign-in';
type Way = 'token' | 'account';

function keptWay(): Way {
  try {
    return localStorage.getItem(WAY_KEY) === 'account' ? 'account' : 'token';
  } catch {
    // Storage is switched off: as on a first visit.
    return 'token';
  }
}

export function SignIn() {
  const way = useSignal<Way>(keptWay());
  const [token, name, password] = [useSignal(''), useSignal(''), useSignal('')];
  const waits = signedIn.value === 'trying' && line.value !== 'away';
  const choose = (next: Way) => {
    way.value = next;
    try {
      localStorage.setItem(WAY_KEY, next);
    } catch {
      // Storage is switched off: asked again next time.
    }
  };
  const text = (id: string, label: string, type: string, autocomplete: string, value: typeof token, hint: string) => (
    <div class="field">
      <label for={id}>{label}</label>
      <input
        id={id}
        type={type}
        autocomplete={autocomplete}
        autocapitalize="none"
        required
        value={value.value}
        onInput={(event) => {
          value.value = event.currentTarget.value;
        }}
        aria-describedby={hint ? `${id}-hint` : undefined}
      />
      {hint && (
        <span class="hint" id={`${id}-hint`}>
          {hint}
        </span>
      )}
    </div>
  );
  return (
    <main class="sign-in">
      <header>
        <strong>weft</strong>
        <ThemeSwitch />
      </header>
      <h1>Sign in to the dashboard</h1>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (way.value === 'account') void signInAs(name.value.trim(), password.value);
          else if (token.value.trim() !== '') signIn(token.value.trim());
        }}
      >
        <fieldset class="ways">
          <legend class="small">Who you are</legend>
          <Choice way="token" label="Holder of the server’s token" chosen={way.value} choose={choose} />
          <Choice way="account" label="Somebody with an account" chosen={way.value} choose={choose} />
        </fieldset>
        {way.value === 'token' ? (
          text(
            'token',
            'Admin token',
            'password',
            'off',
            token,
            'The server printed it when it first started with its data folder. It is kept in this tab only.',
          )
        ) : (
          <>
            {text('name', 'Account name', 'text', 'username', name, 'An owner of the server makes accounts.')}
            {text('password', 'Password', 'password', 'current-password', password, '')}
          </>
        )}
        <button type="submit" class="button primary" disabled={waits}>
          {waits ? 'Signing in…' : 'Sign in'}
        </button>
      </form>
      {signedIn.value === 'trying' && line.value === 'away' && (
        <p class="note warning" role="status">
          The server does not answer; trying again. Look whether it is running at this address.
        </p>
      )}
      {problem.value && <ProblemNote problem={problem.value} />}
    </main>
  );
}

interface ChoiceProps {
  readonly way: Way;
  readonly label: string;
  readonly chosen: Way;
  readonly choose: (way: Way) => void;
}

function Choice({ way, label, chosen, choose }: ChoiceProps) {
  return (
    <label class="choice">
      <input type="radio" name="way" checked={chosen === way} onChange={() => choose(way)} />
      {label}
    </label>
  );
}
