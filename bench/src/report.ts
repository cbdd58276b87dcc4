// A run as a document, a table of text and a page of Markdown. Pure.
import type { Row, Summary, Verdict } from './gates.ts';
import type { Measurement, SuiteResult } from './result.ts';

/** Where and from what a run was made. No path of the machine, no name of its user. */
export interface Provenance {
  /** ISO 8601. */
  readonly date: string;
  readonly command: string;
  /** Of the checkout; null outside one. `-dirty` behind it where files differ from it. */
  readonly commit: string | null;
  /** `node` or `chromium`, with its version. */
  readonly host: { readonly kind: 'node' | 'chromium'; readonly version: string };
  readonly platform: string;
  readonly processor: string;
  readonly processors: number;
}

export interface Report extends Provenance {
  readonly bench: 'weft';
  /** The adapter as the table names it. */
  readonly name: string;
  readonly mode: 'quick' | 'full';
  readonly result: SuiteResult;
  readonly rows: readonly Row[];
  readonly summary: Summary;
}

/** The adapter as people know it. */
export function adapterName({ adapter }: Pick<SuiteResult, 'adapter'>): string {
  const { vendor, architecture, device, description } = adapter;
  return description || device || [vendor, architecture].filter(Boolean).join(' ') || 'unnamed adapter';
}

/** Of files: `lavapipe-node`, `swiftshader-chromium`, `nvidia-h100-80gb-hbm3-node`. */
export function fileStem({ adapter }: Pick<SuiteResult, 'adapter'>, host: Provenance['host']): string {
  const own =
    adapter.class === 'lavapipe' || adapter.class === 'swiftshader' ? adapter.class : adapterName({ adapter });
  const slug = own
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
  return `${slug}-${host.kind}`;
}

export function formatFigure(figure: number | null): string {
  if (figure === null) return '–';
  const size = Math.abs(figure);
  if (size >= 1000) return Math.round(figure).toLocaleString('en');
  if (size >= 100 || Number.isInteger(figure)) return figure.toFixed(0);
  if (size >= 10) return figure.toFixed(1);
  return size >= 0.01 ? figure.toFixed(2) : figure.toExponential(1);
}

export const formatGate = ({ gate }: Pick<Row, 'gate'>): string => {
  if (!gate) return '';
  const value = `${gate.sense === 'at least' ? '≥' : '≤'} ${gate.value}`;
  return gate.aim === null ? value : `${value} (aim ${gate.aim})`;
};

export function formatVerdict(verdict: Verdict): string {
  switch (verdict.kind) {
    case 'pass':
      return 'pass';
    case 'none':
      return '';
    case 'explained':
      return `missed: ${verdict.by}`;
    case 'missed':
      return 'MISSED, unexplained';
    case 'failed':
      return `FAILED: ${verdict.why}`;
  }
}

/** In one line each: an error's text may have several. */
const cells = (row: Row): string[] =>
  [
    row.what,
    `${formatFigure(row.figure)} ${row.unit}`.trim(),
    formatGate(row),
    formatVerdict(row.verdict),
    row.note,
  ].map((cell) => cell.replace(/\s+/g, ' '));
const HEAD = ['what', 'figure', 'gate', 'verdict', 'from'];

/** The table in columns, for a terminal. */
export function textTable(rows: readonly Row[]): string {
  const lines = [HEAD, ...rows.map(cells)];
  const widths = HEAD.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? '').length)));
  return lines
    .map((line) =>
      line
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

export const summaryLine = ({ passed, explained, unexplained }: Summary): string =>
  `${passed} gates met, ${explained} missed with an explanation, ${unexplained} missed without or failed`;

const escaped = (text: string): string => text.replace(/\|/g, '\\|').replace(/\n/g, ' ');

function markdownVerdict(row: Row): string {
  return row.verdict.kind === 'explained' ? `[missed](${row.verdict.by})` : escaped(formatVerdict(row.verdict));
}

function timesTable(measurements: readonly Measurement[]): string[] {
  return [
    '| what | library | median ms | least – most | samples | first run ms |',
    '|---|---|---|---|---|---|',
    ...measurements.flatMap(({ what, timings }) =>
      timings.map(({ name, median, low, high, samples, firstMs, error }) => {
        const spread = low === null ? '' : `${formatFigure(low)} – ${formatFigure(high)}`;
        const figures = [
          median === null ? escaped(error ?? '–') : formatFigure(median),
          spread,
          samples,
          formatFigure(firstMs),
        ];
        return `| ${escaped(what)} | ${escaped(name)} | ${figures.join(' | ')} |`;
      }),
    ),
  ];
}

/** The run as a page beside its plots, whose file names are given with what they show. */
export function markdownPage(report: Report, plots: readonly { file: string; title: string }[]): string {
  const { name, host, mode, date, command, commit, result, rows, summary, platform, processor, processors } = report;
  const lines = [
    `# ${name}, ${host.kind === 'node' ? 'Node' : 'Chromium'}`,
    '',
    `Made by \`${command}\`; [README.md](README.md) says what each row means.`,
    '',
    `- ${date.slice(0, 10)}, commit ${commit ?? 'unknown'}, a ${mode} run of ${Math.round(result.seconds)} s`,
    `- ${host.kind} ${host.version} on ${platform}, ${processors} × ${processor}`,
    `- adapter: ${[name, result.adapter.vendor, result.adapter.architecture].filter(Boolean).join(', ')}; features: ${result.adapter.features.join(', ')}`,
    `- libraries: ${result.libraries.join(', ')}`,
    `- ${summaryLine(summary)}`,
    '',
    ...plots.flatMap(({ file, title }) => [`![${title}](${file})`, '']),
    '| what | figure | gate | verdict | from |',
    '|---|---|---|---|---|',
    ...rows.map(
      (row) =>
        `| ${escaped(row.what)} | ${`${formatFigure(row.figure)} ${row.unit}`.trim()} | ${formatGate(row)} | ${markdownVerdict(row)} | ${escaped(row.note)} |`,
    ),
    '',
    '## Times',
    '',
    ...timesTable(result.measurements),
    '',
  ];
  return lines.join('\n');
}
