// Line charts as SVG for a page that stands alone, or for a file of their own: thin lines and strong ones, or a few series with a
// legend; axes with a few round numbers.

export interface Line {
  readonly name: string;
  /** [x, y], x ascending. */
  readonly points: readonly (readonly [number, number])[];
  readonly strong?: boolean;
  /** Has a colour of its own and a place in the legend. */
  readonly series?: 0 | 1 | 2 | 3;
  readonly dashed?: boolean;
}

export interface LineChart {
  readonly title: string;
  /** One sentence for those who cannot see it. */
  readonly description: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly yTicks: readonly { readonly at: number; readonly text: string }[];
  readonly lines: readonly Line[];
  /** A value of x to mark, with its word. */
  readonly mark?: { readonly at: number; readonly text: string };
}

export const escaped = (text: string): string =>
  text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;');

/** For charts that stand in a file of their own; a page has its own style. */
const STYLE = `
text { font: 12px system-ui, sans-serif; fill: #59636e; }
.title { font-size: 15px; font-weight: 600; fill: #1f2328; }
.grid { stroke: #d1d9e0; } .mark { stroke: #1f2328; stroke-dasharray: 4 3; }
.series { fill: none; stroke-width: 2; } .dashed { stroke-dasharray: 5 4; stroke-width: 1.5; }
.s0 { stroke: #0969da; } .s1 { stroke: #cf222e; } .s2 { stroke: #1a7f37; } .s3 { stroke: #8250df; }
@media (prefers-color-scheme: dark) {
  text { fill: #9198a1; } .title { fill: #e6edf3; } .grid { stroke: #3d444d; } .mark { stroke: #e6edf3; }
  .s0 { stroke: #4493f8; } .s1 { stroke: #ff7b72; } .s2 { stroke: #3fb950; } .s3 { stroke: #ab7df8; }
}`;

const [WIDTH, HEIGHT] = [640, 300];
const LEGEND_ROW = 20;
const TITLE_HEIGHT = 30;
const PLOT = { left: 64, right: WIDTH - 16, top: 16, bottom: HEIGHT - 48 };

/** A handful of whole numbers from 1 or 0 to `most`. */
function wholeTicks(most: number): number[] {
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((each) => most / each <= 8) ?? 1000;
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step);
}

const classOf = ({ strong, series, dashed }: Pick<Line, 'strong' | 'series' | 'dashed'>): string =>
  series === undefined ? (strong ? 'strong' : 'thin') : `series s${series}${dashed ? ' dashed' : ''}`;

/** A chart as an SVG file: its title above, a legend of the series below, colours for light and dark pages. */
export function chartFile(chart: LineChart): string {
  const named = chart.lines.filter(({ series }) => series !== undefined);
  const height = HEIGHT + TITLE_HEIGHT + LEGEND_ROW * named.length + 8;
  const legend = named.map((line, i) => {
    const y = HEIGHT + TITLE_HEIGHT + LEGEND_ROW * i + 10;
    return (
      `<line class="${classOf(line)}" x1="${PLOT.left}" x2="${PLOT.left + 36}" y1="${y}" y2="${y}"/>` +
      `<text x="${PLOT.left + 46}" y="${y + 4}">${escaped(line.name)}</text>`
    );
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escaped(`${chart.title}. ${chart.description}`)}">
<style>${STYLE}</style>
<text class="title" x="${PLOT.left}" y="20">${escaped(chart.title)}</text>
<g transform="translate(0 ${TITLE_HEIGHT})">
${drawing(chart)}
</g>
${legend.join('\n')}
</svg>
`;
}

/** A chart inside a page that has the classes. */
export const lineChart = (chart: LineChart): string =>
  `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escaped(`${chart.title}. ${chart.description}`)}">
${drawing(chart)}
</svg>`;

/** Y goes from the least to the most of its ticks, what lies below on the least; x begins at 0. */
function drawing({ xLabel, yLabel, yTicks, lines, mark }: LineChart): string {
  const mostX = Math.max(1, ...lines.flatMap(({ points }) => points.map(([x]) => x)), mark?.at ?? 0);
  const [leastY, mostY] = [Math.min(...yTicks.map(({ at }) => at)), Math.max(...yTicks.map(({ at }) => at))];
  const x = (value: number) => (PLOT.left + ((PLOT.right - PLOT.left) * value) / mostX).toFixed(1);
  const y = (value: number) =>
    (PLOT.bottom - ((PLOT.bottom - PLOT.top) * (Math.max(value, leastY) - leastY)) / (mostY - leastY)).toFixed(1);
  const grid = [
    ...yTicks.map(
      ({ at, text }) =>
        `<line class="grid" x1="${PLOT.left}" x2="${PLOT.right}" y1="${y(at)}" y2="${y(at)}"/>` +
        `<text x="${PLOT.left - 8}" y="${Number(y(at)) + 4}" text-anchor="end">${escaped(text)}</text>`,
    ),
    ...wholeTicks(mostX).map((at) => `<text x="${x(at)}" y="${PLOT.bottom + 18}" text-anchor="middle">${at}</text>`),
  ];
  const marked = mark
    ? `<line class="mark" x1="${x(mark.at)}" x2="${x(mark.at)}" y1="${PLOT.top}" y2="${PLOT.bottom}"/>` +
      `<text x="${x(mark.at)}" y="${PLOT.top - 4}" text-anchor="middle">${escaped(mark.text)}</text>`
    : '';
  const drawn = [...lines]
    .sort((a, b) => Number(a.strong ?? false) - Number(b.strong ?? false))
    .map(
      (line) =>
        `<polyline class="${classOf(line)}" points="${line.points.map(([px, py]) => `${x(px)},${y(py)}`).join(' ')}"><title>${escaped(line.name)}</title></polyline>`,
    );
  return `${grid.join('\n')}
${marked}
${drawn.join('\n')}
<text x="${(PLOT.left + PLOT.right) / 2}" y="${HEIGHT - 8}" text-anchor="middle">${escaped(xLabel)}</text>
<text transform="translate(14 ${(PLOT.top + PLOT.bottom) / 2}) rotate(-90)" text-anchor="middle">${escaped(yLabel)}</text>`;
}
