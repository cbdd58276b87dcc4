// The result: PEFT adapters of any committed version at any of the run's ranks, and how versions compare.
import { useSignal } from '@preact/signals';
import type { RunSnapshot } from '@weft/protocol';
import { committedRounds } from './charts.ts';
import { Compare } from './rounds.tsx';
import { busy, saveAdapter } from './store.ts';

export function Adapters({ snapshot }: { snapshot: RunSnapshot }) {
  const { run } = snapshot;
  const committed = committedRounds(snapshot.rounds);
  const newest = committed.at(-1)?.version;
  const chosenVersion = useSignal<number | null>(null);
  const chosenRank = useSignal<number | null>(null);
  if (newest === undefined) return null;
  const version = chosenVersion.value ?? newest;
  const rank = chosenRank.value ?? run.settings.ranks.at(-1) ?? 1;
  return (
    <section class="adapters">
      <h2>Adapter</h2>
      <form
        class="buttons"
        onSubmit={(event) => {
          event.preventDefault();
          void saveAdapter(run.runId, rank, version);
        }}
      >
        <select
          aria-label="Version"
          value={String(version)}
          onChange={(event) => {
            chosenVersion.value = Number(event.currentTarget.value);
          }}
        >
          {[...committed].reverse().map((record) => (
            <option key={record.version} value={String(record.version)}>
              version {record.version} (round {record.round})
            </option>
          ))}
        </select>
        <select
          aria-label="Rank"
          value={String(rank)}
          onChange={(event) => {
            chosenRank.value = Number(event.currentTarget.value);
          }}
        >
          {run.settings.ranks.map((each) => (
            <option key={each} value={String(each)}>
              rank {each}
            </option>
          ))}
        </select>
        <button type="submit" class="button" disabled={busy.value === 'download'}>
          Download PEFT
        </button>
      </form>
      <p class="quiet small">
        A zip with adapter_model.safetensors, adapter_config.json and a model card; PEFT loads the folder.
      </p>
      <h3>Compare versions</h3>
      <Compare snapshot={snapshot} />
    </section>
  );
}
