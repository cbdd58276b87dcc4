// The three charts of a run.
import { useSignal } from '@preact/signals';
import type { RunSnapshot } from '@weft/protocol';
import { ChartFigure } from '../shared/chart.tsx';
import { dark } from '../shared/theme.tsx';
import { costChart, lossChart, moduleLabel, modulesOf, spectrumChart } from './charts.ts';

const HEIGHT = 220;

export function Charts({ snapshot }: { snapshot: RunSnapshot }) {
  const chosen = useSignal<string | null>(null);
  const modules = modulesOf(snapshot.rounds);
  const module = chosen.value !== null && modules.includes(chosen.value) ? chosen.value : (modules[0] ?? '');
  const isDark = dark.value;
  const waits = snapshot.run.settings.evaluate
    ? 'Appears with the first evaluated version. Evaluations are done by weft join --evaluate.'
    : 'This run measures no held-out loss; training loss appears after the first round.';
  return (
    <section class="charts" aria-label="Charts">
      <ChartFigure spec={lossChart(snapshot, isDark)} height={HEIGHT} empty={waits} />
      <ChartFigure
        spec={spectrumChart(snapshot.rounds, module, isDark)}
        height={HEIGHT}
        empty="Singular values of the merged update appear after the first round: how many directions it uses, and how strongly."
        tools={
          modules.length > 0 && (
            <select
              class="compact"
              aria-label="Matrix"
              value={module}
              onChange={(event) => {
                chosen.value = event.currentTarget.value;
              }}
            >
              {modules.map((name) => (
                <option key={name} value={name}>
                  {moduleLabel(name)}
                </option>
              ))}
            </select>
          )
        }
      />
      <ChartFigure
        spec={costChart(snapshot.rounds, isDark)}
        height={HEIGHT}
        empty="Uploaded bytes by rank, and how long each merge took, appear after the first round."
      />
    </section>
  );
}
