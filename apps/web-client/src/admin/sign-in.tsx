// Signing in with the token the server printed. It stays in this tab's session storage and nowhere else.
import { useSignal } from '@preact/signals';
import { ProblemNote } from '../shared/note.tsx';
import { ThemeSwitch } from '../shared/theme.tsx';
import { line, problem, signedIn, signIn } from './store.ts';

export function SignIn() {
  const token = useSignal('');
  const trying = signedIn.value === 'trying';
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
          const given = token.value.trim();
          if (given !== '') signIn(given);
        }}
      >
        <div class="field">
          <label for="token">Admin token</label>
          <input
            id="token"
            type="password"
            autocomplete="current-password"
            required
            value={token.value}
            onInput={(event) => {
              token.value = event.currentTarget.value;
            }}
            aria-describedby="token-hint"
          />
          <span class="hint" id="token-hint">
            The server printed it when it first started with its data folder. It is kept in this tab only.
          </span>
        </div>
        <button type="submit" class="button primary" disabled={trying && line.value !== 'away'}>
          {trying && line.value !== 'away' ? 'Signing in…' : 'Sign in'}
        </button>
      </form>
      {trying && line.value === 'away' && (
        <p class="note warning" role="status">
          The server does not answer; trying again. Look whether it is running at this address.
        </p>
      )}
      {problem.value && <ProblemNote problem={problem.value} />}
    </main>
  );
}
