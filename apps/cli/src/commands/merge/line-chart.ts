// Line charts as SVG for a page that stands alone: many thin lines and one strong one, axes with a few round numbers.

export interface Line {
  readonly name: string;
  /** [x, y], x ascending. */
  readonly points: readonly (readonly [number, number])[];
  readonly strong?: boolean;
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

const [WIDTH, HEIGHT] = [640, 300];
const PLOT = { left: 64, right: WIDTH - 16, top: 16, bottom: HEIGHT - 48 };

/** A handful of whole numbers from 1 or 0 to `most`. */
function wholeTicks(most: number): number[] {
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((each) => most / each <= 8) ?? 1000;
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step);
}

/** Ticks of y lie between the least and the most of them; x begins at 0. */
export function lineChart({ title, description, xLabel, yLabel, yTicks, lines, mark }: LineChart): string {
  const mostX = Math.max(1, ...lines.flatMap(({ points }) => points.map(([x]) => x)), mark?.at ?? 0);
  const [leastY, mostY] = [Math.min(...yTicks.map(({ at }) => at)), Math.max(...yTicks.map(({ at }) => at))];
  const x = (value: number) => (PLOT.left + ((PLOT.right - PLOT.left) * value) / mostX).toFixed(1);
  const y = (value: number) =>
    (PLOT.bottom - ((PLOT.bottom - PLOT.top) * (value - leastY)) / (mostY - leastY)).toFixed(1);
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
      ({ name, points, strong }) =>
        `<polyline class="${strong ? 'strong' : 'thin'}" points="${points.map(([px, py]) => `${x(px)},${y(py)}`).join(' ')}"><title>${escaped(name)}</title></polyline>`,
    );
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escaped(`${title}. ${description}`)}">
${grid.join('\n')}
${marked}
${drawn.join('\n')}
<text x="${(PLOT.left + PLOT.right) / 2}" y="${HEIGHT - 8}" text-anchor="middle">${escaped(xLabel)}</text>
<text transform="translate(14 ${(PLOT.top + PLOT.bottom) / 2}) rotate(-90)" text-anchor="middle">${escaped(yLabel)}</text>
</svg>`;
}
