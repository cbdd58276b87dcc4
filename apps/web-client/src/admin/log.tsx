// What happened, newest first, by level and words.
import { useSignal } from '@preact/signals';
import type { LogLine } from '@weft/protocol';
import { clockTime } from '../shared/format.ts';
import { ScrollRegion } from '../shared/scroll-region.tsx';
import { busy, saveEvents } from './store.ts';

type Level = LogLine['level'] | 'all';

export function Log({ log, runId }: { log: readonly LogLine[]; runId: string }) {
  const level = useSignal<Level>('all');
  const words = useSignal('');
  const needle = words.value.trim().toLowerCase();
  const lines = [...log]
    .reverse()
    .filter(
      (entry) => (level.value === 'all' || entry.level === level.value) && entry.text.toLowerCase().includes(needle),
    );
  return (
    <section class="log">
      <div class="section-head">
        <h2>Log</h2>
        <span class="spacer" />
        <select
          aria-label="Level"
          value={level.value}
          onChange={(event) => {
            level.value = event.currentTarget.value as Level;
          }}
        >
          <option value="all">all levels</option>
          <option value="info">info</option>
          <option value="warning">warnings</option>
          <option value="error">errors</option>
        </select>
        <input
          type="search"
          aria-label="Filter log"
          placeholder="Filter"
          value={words.value}
          onInput={(event) => {
            words.value = event.currentTarget.value;
          }}
        />
        <button
          type="button"
          class="button small"
          disabled={busy.value === 'download'}
          onClick={() => void saveEvents(runId)}
        >
          Download JSONL
        </button>
      </div>
      <ScrollRegion label="Log lines">
        <ol>
          {lines.map((entry, i) => (
            <li key={`${entry.at}-${lines.length - i}`} class={entry.level}>
              <time dateTime={entry.at}>{clockTime(entry.at)}</time>
              <span class="level">{entry.level === 'info' ? '' : entry.level}</span>
              <span>{entry.text}</span>
            </li>
          ))}
          {lines.length === 0 && <li class="quiet">Nothing in the log matches.</li>}
        </ol>
      </ScrollRegion>
    </section>
  );
}
