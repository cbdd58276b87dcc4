// The one row of buttons: Start helping, or Pause · Finish this round · Stop.
import { useSignal } from '@preact/signals';
import { bytes } from '../shared/format.ts';
import type { TabState } from '../worker/api.ts';
import { refuseFile, takeWish } from './data-choice.tsx';
import { api, ask, helping, selfPaused } from './tab-link.ts';

export function Controls({ state }: { state: TabState | null }) {
  if (state && helping.value) return <WhileHelping state={state} />;
  const ended = state?.run?.state === 'completed' || state?.run?.state === 'stopped';
  if (ended) return null;
  if (state?.asksToDownload) {
    return (
      <div class="buttons">
        <button type="button" class="button primary" onClick={() => ask((remote) => remote.resume())}>
          Download {bytes(state.missingBytes ?? 0)} and measure
        </button>
      </div>
    );
  }
  return <BeforeHelping state={state} />;
}

function BeforeHelping({ state }: { state: TabState | null }) {
  const checking = useSignal(false);
  // After a failure another choice of data may be what helps.
  const failed = state?.stage === 'failed' && state.rank !== null;
  const can = (state?.stage === 'ready' || state?.stage === 'stopped' || failed) && !checking.value;
  const start = async () => {
    const wish = takeWish();
    if (!wish) return;
    checking.value = true;
    try {
      const check = await api().chooseData(wish);
      if (!check.ok) {
        refuseFile(check);
        return;
      }
      ask((remote) => remote.start());
    } finally {
      checking.value = false;
    }
  };
  return (
    <div class="buttons start-row">
      <button type="button" class="button primary" disabled={!can} onClick={() => void start()}>
        {state?.stage === 'stopped' || failed ? 'Start again' : 'Start helping'}
      </button>
    </div>
  );
}

function WhileHelping({ state }: { state: TabState }) {
  const stopping = useSignal(false);
  return (
    <div class="buttons">
      {state.paused ? (
        <button
          type="button"
          class="button primary"
          onClick={() => {
            selfPaused.value = null;
            ask((remote) => remote.resume());
          }}
        >
          Resume
        </button>
      ) : (
        <button type="button" class="button" onClick={() => ask((remote) => remote.pause())}>
          Pause
        </button>
      )}
      <button
        type="button"
        class="button"
        disabled={state.finishing || stopping.value}
        onClick={() => ask((remote) => remote.finishRound())}
      >
        {state.finishing ? 'Finishing this round' : 'Finish this round'}
      </button>
      <button
        type="button"
        class="button danger"
        disabled={stopping.value}
        onClick={() => {
          stopping.value = true;
          ask((remote) => remote.stop());
        }}
      >
        Stop
      </button>
    </div>
  );
}
