// A chart drawn by uPlot, which is loaded when the first one is shown. Colours come from the tokens, so a change of
// theme rebuilds the chart; new figures only replace its data.
import type { Signal } from '@preact/signals';
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import type uPlot from 'uplot';
import { type ChartSeries, type ChartSpec, chartShape, chartTable, sameFigures } from './chart-spec.ts';
import { ScrollRegion } from './scroll-region.tsx';
import { dark } from './theme.tsx';

const loadPlot = () =>
  Promise.all([import('uplot'), import('uplot/dist/uPlot.min.css')]).then(([plot]) => plot.default);

/** The value of a colour token as the canvas understands it. */
function resolveColour(host: HTMLElement, colour: string): string {
  if (!colour.startsWith('--')) return colour;
  const probe = document.createElement('span');
  probe.style.color = `var(${colour})`;
  host.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

function alignedData(spec: ChartSpec): uPlot.AlignedData {
  return [[...spec.x], ...spec.series.map((series) => [...series.values])];
}

function optionsOf(
  Plot: typeof uPlot,
  spec: ChartSpec,
  host: HTMLElement,
  width: number,
  height: number,
): uPlot.Options {
  const colour = (value: string) => resolveColour(host, value);
  const quiet = colour('--ink-quiet');
  const grid = { stroke: colour('--line'), width: 1 };
  const font = `12px ${getComputedStyle(host).fontFamily}`;
  const axis = { stroke: quiet, grid, ticks: { show: false }, font, labelFont: font, labelSize: 16, labelGap: 0 };
  const seriesOf = (series: ChartSeries): uPlot.Series => ({
    label: series.label,
    stroke: colour(series.colour),
    width: series.width ?? 1.5,
    scale: series.axis === 'right' ? 'right' : 'y',
    points: { show: (plot) => series.kind !== 'bars' && plot.data[0].length < 40, size: 5 },
    spanGaps: true,
    ...(series.dashed ? { dash: [5, 4] } : {}),
    ...(series.kind === 'bars' && Plot.paths.bars
      ? { paths: Plot.paths.bars({ size: [0.6, 48] }), fill: colour(series.colour), width: 0 }
      : {}),
  });
  const hasRight = spec.series.some((series) => series.axis === 'right');
  const { rightFormat } = spec;
  const bars = spec.series.some((series) => series.kind === 'bars');
  return {
    width,
    height,
    legend: { show: false },
    cursor: { show: false },
    padding: [8, 10, 0, 0],
    scales: {
      x: {
        time: false,
        range: (_, min, max) => {
          const [low, high] = spec.xRange ?? [min, max];
          const margin = bars ? 0.5 : low === high ? 1 : 0;
          return [low - margin, high + margin];
        },
      },
      y: spec.logarithmic ? { distr: 3 } : bars ? { range: (_, __, max) => [0, (max || 1) * 1.08] } : {},
      ...(hasRight
        ? { right: { range: (_: uPlot, __: number, max: number) => [0, (max || 1) * 1.2] as [number, number] } }
        : {}),
    },
    axes: [
      {
        ...axis,
        size: spec.compact ? 22 : 34,
        ...(spec.compact ? {} : { label: spec.xLabel }),
        incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000],
      },
      {
        ...axis,
        size: spec.compact ? 40 : 52,
        space: spec.compact ? 18 : 30,
        ...(spec.compact ? {} : { label: spec.yLabel }),
        values: (_, splits) => splits.map((value) => (value === null ? '' : spec.format(value))),
      },
      ...(hasRight && rightFormat
        ? [
            {
              ...axis,
              side: 1 as const,
              scale: 'right',
              size: 52,
              grid: { show: false },
              label: spec.rightLabel ?? '',
              values: (_: uPlot, splits: number[]) => splits.map(rightFormat),
            },
          ]
        : []),
    ],
    series: [{}, ...spec.series.map(seriesOf)],
  };
}

/** The drawing alone, `height` CSS pixels high whatever it shows. */
export function Chart({ spec, height }: { spec: ChartSpec; height: number }) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(spec);
  const failed = useSignal(false);
  const shape = chartShape(spec);
  const isDark = dark.value;

  // Colours are read through the tokens and figures through a ref, so only shape, theme and height rebuild the chart.
  useEffect(() => {
    const element = host.current;
    if (!element) return;
    let gone = false;
    const observer = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height }));
    loadPlot().then(
      (Plot) => {
        if (gone) return;
        const options = optionsOf(Plot, latest.current, element, element.clientWidth, height);
        plot.current = new Plot(options, alignedData(latest.current), element);
        observer.observe(element);
        // A lost GPU takes the canvas's picture along.
        plot.current.ctx.canvas.addEventListener('contextrestored', () => plot.current?.redraw());
      },
      () => {
        failed.value = true;
      },
    );
    return () => {
      gone = true;
      observer.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape, isDark, height]);

  useEffect(() => {
    if (plot.current && !sameFigures(spec, latest.current)) plot.current.setData(alignedData(spec));
    latest.current = spec;
  });

  return (
    <div class="chart" ref={host} style={{ height: `${height}px` }} role="img" aria-label={describeChart(spec)}>
      {failed.value && <p class="quiet">The chart could not be loaded. The table has its figures.</p>}
    </div>
  );
}

function describeChart(spec: ChartSpec): string {
  const lines = spec.series.filter((series) => !series.decoration).map((series) => series.label);
  return `Chart: ${spec.title}. ${spec.yLabel} by ${spec.xLabel}${lines.length > 0 ? ` for ${lines.join(', ')}` : ''}.`;
}

/** Chart with its title, legend and a switch to the same figures as a table. */
export function ChartFigure({
  spec,
  height,
  empty,
  tools,
}: {
  spec: ChartSpec;
  height: number;
  empty: string;
  tools?: preact.ComponentChildren;
}) {
  const asTable: Signal<boolean> = useSignal(false);
  const blank = spec.x.length === 0;
  const table = asTable.value ? chartTable(spec) : null;
  return (
    <figure class="figure">
      <figcaption>
        <h2>{spec.title}</h2>
        <button
          type="button"
          class="button quiet small"
          aria-pressed={asTable.value}
          disabled={blank}
          onClick={() => {
            asTable.value = !asTable.value;
          }}
        >
          {asTable.value ? 'Chart' : 'Table'}
        </button>
      </figcaption>
      {blank ? (
        <p class="figure-empty" style={{ height: `${height}px` }}>
          {empty}
        </p>
      ) : table ? (
        <ScrollRegion label={`${spec.title}, as a table`} height={height}>
          <table class="figures">
            <thead>
              <tr>
                {table.columns.map((column) => (
                  <th key={column} scope="col">
                    {column}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {table.rows.map((row) => (
                <tr key={row[0]}>
                  {row.map((cell, i) =>
                    i === 0 ? (
                      <th key={table.columns[i]} scope="row">
                        {cell}
                      </th>
                    ) : (
                      <td key={table.columns[i]}>{cell}</td>
                    ),
                  )}
                </tr>
              ))}
            </tbody>
          </table>
        </ScrollRegion>
      ) : (
        <Chart spec={spec} height={height} />
      )}
      <ul class="legend">
        {(blank ? [] : spec.series)
          .filter((series) => !series.decoration)
          .map((series) => (
            <li key={series.label}>
              <i
                class={series.dashed ? 'dashed' : ''}
                style={{ '--swatch': series.colour.startsWith('--') ? `var(${series.colour})` : series.colour }}
              />
              {series.label}
            </li>
          ))}
      </ul>
      {tools}
    </figure>
  );
}
