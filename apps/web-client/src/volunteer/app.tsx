// The page from top to bottom: who asks, this device, the price, the data, the work.
import { signal } from '@preact/signals';
import { ProblemNote } from '../shared/note.tsx';
import { ThemeSwitch } from '../shared/theme.tsx';
import type { Fault, TabState } from '../worker/api.ts';
import { About, Header } from './about.tsx';
import { Controls } from './controls.tsx';
import { DataChoice } from './data-choice.tsx';
import { DeviceCard } from './device-card.tsx';
import { MyLimits } from './my-limits.tsx';
import { Price } from './price.tsx';
import { ForgetMe, Forgotten, forgotten } from './rights.tsx';
import { ask, helping, openingFault, tab } from './tab-link.ts';
import { problemOf } from './words.ts';
import { Work } from './work.tsx';

/** Whether "My limits" stands open. */
const limitsOpen = signal(false);

export function App() {
  const state = tab.value;
  const fault = openingFault.value ?? state?.error ?? null;
  // Without GPU, storage or key there is nothing to choose and nothing to start.
  const closed = openingFault.value !== null && state === null;
  const ended = !helping.value && (state?.run?.state === 'completed' || state?.run?.state === 'stopped');
  if (forgotten.value) {
    return (
      <div class="volunteer">
        <Header state={null} closed={true} />
        <main>
          <Forgotten reply={forgotten.value} />
        </main>
      </div>
    );
  }
  return (
    <div class="volunteer">
      <Header state={state} closed={closed} />
      <main>
        <About run={state?.run ?? null} closed={closed} />
        {fault && <Trouble fault={fault} state={state} />}
        {!closed && (
          <>
            <DeviceCard state={state} />
            <Price state={state} />
            {helping.value || ended ? null : <DataChoice state={state} />}
            {!ended && <MyLimits state={state} open={limitsOpen} />}
            <Controls state={state} />
            <Work state={state} />
            <ForgetMe state={state} />
          </>
        )}
      </main>
      <footer>
        <span class="quiet small">weft trains language models on lent GPUs.</span>
        <ThemeSwitch />
      </footer>
    </div>
  );
}

function Trouble({ fault, state }: { fault: Fault; state: TabState | null }) {
  const { problem, remedy } = problemOf(fault, {
    clientId: state?.clientId ?? null,
    rounds: state?.totals.rounds ?? 0,
    browser: navigator.userAgent,
  });
  return (
    <ProblemNote problem={problem}>
      {remedy === 'reload' && (
        <button type="button" class="button" onClick={() => location.reload()}>
          Reload the page
        </button>
      )}
      {remedy === 'retry' && (
        <button type="button" class="button" onClick={() => ask((remote) => remote.retry())}>
          Try again
        </button>
      )}
      {remedy === 'limits' && (
        <button
          type="button"
          class="button"
          onClick={() => {
            limitsOpen.value = true;
          }}
        >
          Open “My limits”
        </button>
      )}
    </ProblemNote>
  );
}
