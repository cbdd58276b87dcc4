// The two pictures of a run: whole steps beside the peers, and what share of the measured peaks our kernels reach.
import type { Row } from './gates.ts';
import { type Bar, barChart, type Chart } from './plot.ts';
import { formatFigure, type Report } from './report.ts';

const seriesOf = (index: number): Bar['series'] => (index === 0 ? 0 : index === 1 ? 1 : 2);

function stepsChart({ name, result }: Report): Chart | null {
  const steps = result.measurements.filter(({ group }) => group === 'step');
  const groups = steps.map(({ what, timings, facts }) => ({
    heading: what,
    bars: timings.map(({ name: library, median, error }, i): Bar => {
      const perSecond = median === null ? Number.NaN : (1000 * (facts.tokens ?? 0)) / median;
      const label = library.replace(/^@tensorflow\/tfjs-backend-webgpu/, 'tfjs').replace(/^@jax-js\/jax/, 'jax-js');
      const text = median === null ? (error ?? '').slice(0, 24) : `${formatFigure(perSecond)} tokens/s`;
      return { label, value: perSecond, text, series: seriesOf(i) };
    }),
  }));
  if (groups.length === 0) return null;
  const told = groups.map(
    ({ heading, bars }) => `${heading}: ${bars.map(({ label, text }) => `${label} ${text}`).join(', ')}`,
  );
  return { title: `Whole LoRA steps, ${name}`, description: `${told.join('; ')}.`, groups };
}

function shareChart({ name, rows, result }: Report): Chart | null {
  const barOf = (row: Row): Bar => ({
    label: row.id.replace(/\/share$/, ''),
    value: row.figure ?? Number.NaN,
    text: row.figure === null ? '–' : `${formatFigure(row.figure)} %`,
    series: 0,
    gate: row.gate?.value,
  });
  const shares = (groupNames: readonly string[]) => {
    const ids = result.measurements.filter(({ group }) => groupNames.includes(group)).map(({ id }) => `${id}/share`);
    return rows.filter(({ id }) => ids.includes(id)).map(barOf);
  };
  const groups = [
    { heading: 'Products, of the measured FMA peak', bars: shares(['matmul', 'model-matmul']) },
    { heading: 'Passes, of what copying or exponentials allow', bars: shares(['pointwise']) },
  ].filter(({ bars }) => bars.length > 0);
  if (groups.length === 0) return null;
  const told = groups.map(
    ({ heading, bars }) => `${heading}: ${bars.map(({ label, text }) => `${label} ${text}`).join(', ')}`,
  );
  return { title: `Share of measured peaks, ${name}`, description: `${told.join('; ')}. A line marks a gate.`, groups };
}

/** File name behind the run's own, title and content of every picture there is something to show in. */
export function chartsOf(report: Report): { suffix: string; title: string; svg: string }[] {
  const charts = { steps: stepsChart(report), share: shareChart(report) };
  return Object.entries(charts).flatMap(([suffix, chart]) =>
    chart ? [{ suffix, title: chart.title, svg: barChart(chart) }] : [],
  );
}
