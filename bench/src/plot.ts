// Bar charts as SVG that stand in a Markdown page: text labels beside every bar, a line where a gate is, and colours for light
// and dark pages.

export interface Bar {
  readonly label: string;
  readonly value: number;
  /** As printed at its end. */
  readonly text: string;
  /** 0 for ours, 1 and 2 for others: bars of one series have one colour. */
  readonly series: 0 | 1 | 2;
  /** Where on the scale the gate is. */
  readonly gate?: number | undefined;
}

export interface Chart {
  readonly title: string;
  /** One sentence for those who cannot see it. */
  readonly description: string;
  /** Bars in groups with a heading each. */
  readonly groups: readonly { readonly heading: string; readonly bars: readonly Bar[] }[];
}

const WIDTH = 760;
const LABEL = 190;
const VALUE = 150;
const BAR = 18;
const ROW = 24;
const HEADING = 28;
const TOP = 44;

const escaped = (text: string): string =>
  text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;');

const STYLE = `
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; }
.heading { font-weight: 600; }
.value { font-variant-numeric: tabular-nums; }
.s0 { fill: #0969da; } .s1 { fill: #8c959f; } .s2 { fill: #afb8c1; }
.gate { stroke: #cf222e; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .s0 { fill: #4493f8; } .s1 { fill: #7d8590; } .s2 { fill: #484f58; }
  .gate { stroke: #ff7b72; }
}`;

/** A horizontal bar chart on one linear scale. Bars that are not finite are drawn empty. */
export function barChart({ title, description, groups }: Chart): string {
  const values = groups.flatMap(({ bars }) => bars.flatMap(({ value, gate = 0 }) => [value, gate]));
  const most = Math.max(...values.filter(Number.isFinite), Number.MIN_VALUE);
  const scale = (value: number) => (Number.isFinite(value) ? ((WIDTH - LABEL - VALUE) * Math.max(0, value)) / most : 0);
  const parts: string[] = [];
  let y = TOP;
  for (const { heading, bars } of groups) {
    if (heading) {
      parts.push(`<text class="heading" x="8" y="${y + 16}">${escaped(heading)}</text>`);
      y += HEADING;
    }
    for (const { label, value, text, series, gate } of bars) {
      const width = scale(value).toFixed(1);
      const middle = y + BAR / 2 + 4.5;
      parts.push(
        `<text x="${LABEL - 8}" y="${middle}" text-anchor="end">${escaped(label)}</text>`,
        `<rect class="s${series}" x="${LABEL}" y="${y}" width="${width}" height="${BAR}" rx="2"/>`,
      );
      // Beside its bar, but not across the gate's line.
      const free = gate === undefined ? Number.POSITIVE_INFINITY : scale(gate) - scale(value);
      const ends = gate === undefined || free < 0 || free > VALUE / 2 ? scale(value) : scale(gate);
      if (gate !== undefined) {
        const x = (LABEL + scale(gate)).toFixed(1);
        parts.push(`<line class="gate" x1="${x}" x2="${x}" y1="${y - 2}" y2="${y + BAR + 2}"/>`);
      }
      parts.push(`<text class="value" x="${(LABEL + ends + 6).toFixed(1)}" y="${middle}">${escaped(text)}</text>`);
      y += ROW;
    }
  }
  const height = y + 8;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-labelledby="title desc">
<title id="title">${escaped(title)}</title>
<desc id="desc">${escaped(description)}</desc>
<style>${STYLE}
</style>
<text class="title" x="8" y="26">${escaped(title)}</text>
${parts.join('\n')}
</svg>
`;
}
