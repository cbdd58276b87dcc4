// The charts of a run.
import { useSignal } from '@preact/signals';
import type { RunSnapshot } from '@weft/protocol';
import { ChartFigure } from '../shared/chart.tsx';
import type { ChartSpec } from '../shared/chart-spec.ts';
import { dark } from '../shared/theme.tsx';
import { costChart, lossChart, moduleLabel, modulesOf, spectrumChart } from './charts.ts';
import { agreementChart, energyChart, truncationChart } from './health-charts.ts';

const HEIGHT = 220;

export function Charts({ snapshot }: { snapshot: RunSnapshot }) {
  const chosen = useSignal<string | null>(null);
  const modules = modulesOf(snapshot.rounds);
  const module = chosen.value !== null && modules.includes(chosen.value) ? chosen.value : (modules[0] ?? '');
  const isDark = dark.value;
  const matrixChoice = (chart: string) =>
    modules.length > 0 && (
      <select
        class="compact"
        aria-label={`Matrix of “${chart}”`}
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
    );
  const [spectrum, energy, truncation] = [spectrumChart, energyChart, truncationChart].map((chart) =>
    chart(snapshot.rounds, module, isDark),
  ) as [ChartSpec, ChartSpec, ChartSpec];
  const waits = snapshot.run.settings.evaluate
    ? 'Appears with the first evaluated version. Evaluations are done by weft join --evaluate.'
    : 'This run measures no held-out loss; training loss appears after the first round.';
  return (
    <section class="charts" aria-label="Charts">
      <ChartFigure spec={lossChart(snapshot, isDark)} height={HEIGHT} empty={waits} />
      <ChartFigure
        spec={spectrum}
        height={HEIGHT}
        empty="Singular values of the merged update appear after the first round: how many directions it uses, and how strongly."
        tools={matrixChoice(spectrum.title)}
      />
      <ChartFigure
        spec={costChart(snapshot.rounds, isDark)}
        height={HEIGHT}
        empty="Uploaded bytes by rank, and how long each merge took, appear after the first round."
      />
      <ChartFigure
        spec={energy}
        height={HEIGHT}
        empty="How much of the merged update its first directions hold appears after the first round."
        tools={matrixChoice(energy.title)}
      />
      <ChartFigure
        spec={truncation}
        height={HEIGHT}
        empty="What devices of each rank are not given of the merged update appears after the first round."
        tools={matrixChoice(truncation.title)}
      />
      <ChartFigure
        spec={agreementChart(snapshot.rounds)}
        height={HEIGHT}
        empty="How far the devices’ changes point the same way appears after the first round: 1 is the same direction, 0 none in common."
      />
    </section>
  );
}
