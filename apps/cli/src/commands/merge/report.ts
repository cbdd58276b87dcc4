// What a merge did, as a document and as a page that stands alone: energy by rank, what each rank loses, how far the
// adapters agree and which stand out, and every matrix in a table.
import { findOutliers, type MatrixReport } from '@weft/flexlora';
import { escaped, lineChart } from '../../charts/line-chart.ts';

export interface MergedModule extends MatrixReport {
  readonly module: string;
  /** [out, in] */
  readonly shape: readonly [number, number];
  /** ‖M − M_R‖ / ‖M‖ in the Frobenius norm, M_R what is written. */
  readonly lost: number;
  /** Cosine of each adapter's change (its product where no start is given) with the weighted mean change; 0 for no change. */
  readonly cosineToMean: readonly number[];
  /** ‖Δ‖ of each adapter's change. */
  readonly changeNorm: readonly number[];
}

export interface MergeReport {
  readonly strategy: string;
  readonly rank: number;
  readonly baseModel: string;
  readonly adapters: readonly {
    readonly path: string;
    readonly ranks: readonly number[];
    readonly weight: number;
    readonly share: number;
  }[];
  readonly modules: readonly MergedModule[];
}

const mean = (values: readonly number[]): number =>
  values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;

/** ‖M − trunc_r(M)‖ / ‖M‖ for r = 0 … number of singular values, summed from the small end. */
export function lossByRank(sigma: readonly number[]): number[] {
  const tails = new Array<number>(sigma.length + 1).fill(0);
  for (let k = sigma.length - 1; k >= 0; k -= 1) tails[k] = (tails[k + 1] ?? 0) + (sigma[k] ?? 0) ** 2;
  const [whole = 0] = tails;
  return tails.map((tail) => (whole === 0 ? 0 : Math.sqrt(tail / whole)));
}

/** The mean at every place; a list that has ended counts with its last value. */
function meanOf(lists: readonly (readonly number[])[]): number[] {
  const longest = Math.max(0, ...lists.map((list) => list.length));
  return Array.from({ length: longest }, (_, i) => mean(lists.map((list) => list[i] ?? list.at(-1) ?? 0)));
}

const STYLE = `
:root { color-scheme: light dark; --ink: #1f2328; --quiet: #59636e; --ground: #ffffff; --line: #d1d9e0; --accent: #0969da; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --quiet: #9198a1; --ground: #0d1117; --line: #3d444d; --accent: #4493f8; } }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--quiet); }
.grid { stroke: var(--line); } .mark { stroke: var(--ink); stroke-dasharray: 4 3; }
.thin { fill: none; stroke: var(--quiet); opacity: 0.35; } .strong { fill: none; stroke: var(--accent); stroke-width: 2.5; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem 0.25rem 0; text-align: left; border-bottom: 1px solid var(--line); } td.number, th.number { text-align: right; }
p.quiet { color: var(--quiet); }`;

/** Norm of each adapter's change and its cosine with the mean, over all matrices; and why one stands out. */
function changesOf(adapters: MergeReport['adapters'], modules: readonly MergedModule[]) {
  const changes = adapters.map((_, i) => ({
    norm: Math.hypot(...modules.map(({ changeNorm }) => changeNorm[i] ?? 0)),
    cosine: mean(modules.map(({ cosineToMean }) => cosineToMean[i] ?? 0)),
  }));
  const outliers = findOutliers(changes);
  return changes.map((change, i) => ({ ...change, outlier: outliers[i] ?? null }));
}

/** What adapters of each rank do not hold of the merged one, and the share of the weight that reaches that far. */
function rankRows(modules: readonly MergedModule[]): Cell[][] {
  const ranks = [...new Set(modules.flatMap(({ truncationError }) => Object.keys(truncationError).map(Number)))];
  return ranks
    .sort((a, b) => a - b)
    .map((rank) => {
      const errors = modules.flatMap(({ truncationError }) => truncationError[rank] ?? []);
      const reached = modules.flatMap(({ p }) => p[rank - 1] ?? []);
      return [rank, percent(mean(errors)), percent(Math.max(0, ...errors)), percent(mean(reached))];
    });
}

type Cell = string | number;

function htmlTable(caption: string, heads: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const cell = (tag: 'td' | 'th', value: Cell, number: boolean) =>
    `<${tag}${tag === 'th' ? ' scope="col"' : ''}${number ? ' class="number"' : ''}>${escaped(String(value))}</${tag}>`;
  const numeric = heads.map(
    (_, i) => typeof rows[0]?.[i] === 'number' || /^[\d.]+ ?%?$/.test(String(rows[0]?.[i] ?? '')),
  );
  const line = (tag: 'td' | 'th', cells: readonly Cell[]) =>
    `<tr>${cells.map((value, i) => cell(tag, value, numeric[i] ?? false)).join('')}</tr>`;
  return `<div class="scroll" role="region" aria-label="${escaped(caption)}" tabindex="0"><table><thead>${line('th', heads)}</thead><tbody>
${rows.map((row) => line('td', row)).join('\n')}
</tbody></table></div>`;
}

const percent = (share: number): string => `${(100 * share).toFixed(share < 0.1 ? 2 : 1)} %`;
const SHARE_TICKS = [0, 0.25, 0.5, 0.75, 1].map((at) => ({ at, text: `${at * 100} %` }));

/** The page. Holds no script and asks for nothing from outside. */
export function reportPage({ strategy, rank, baseModel, adapters, modules }: MergeReport): string {
  const energies = modules.map(({ energyByRank }) => [0, ...energyByRank]);
  const losses = modules.map(({ sigma }) => lossByRank(sigma));
  const lines = (lists: readonly (readonly number[])[]) => [
    ...lists.map((list, m) => ({
      name: modules[m]?.module ?? '',
      points: list.map((value, k) => [k, value] as const),
    })),
    { name: 'mean of all matrices', points: meanOf(lists).map((value, k) => [k, value] as const), strong: true },
  ];
  const most = Math.max(0, ...losses.map((list) => list.length - 1));
  const mark = { at: Math.min(rank, most), text: `rank ${rank}` };
  const worst = [...modules].sort((a, b) => b.lost - a.lost);
  const lost = mean(modules.map((each) => each.lost));
  const changes = changesOf(adapters, modules);
  const title = `${adapters.length} adapters merged by ${strategy} at rank ${rank}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>${escaped(title)}</h1>
<p>${modules.length} matrices${baseModel ? ` of ${escaped(baseModel)}` : ''}. Rank ${rank} loses ${percent(lost)} of a matrix in the mean, ${percent(worst[0]?.lost ?? 0)} at
worst (Frobenius norm).</p>
<h2>Adapters</h2>
${htmlTable(
  'Adapters',
  ['adapter', 'ranks', 'weight', 'share', 'change', 'agreement', 'stands out'],
  adapters.map(({ path, ranks, weight, share }, i) => [
    path,
    ranks.join(', '),
    weight,
    percent(share),
    (changes[i]?.norm ?? 0).toPrecision(3),
    (changes[i]?.cosine ?? 0).toFixed(3),
    changes[i]?.outlier ?? '–',
  ]),
)}
<p class="quiet">Change: Frobenius norm of the adapter's change, over all matrices. Agreement: cosine of the adapter's change with the mean change, in the mean over all matrices. 1 is the
same direction, 0 none in common.</p>
<h2>Ranks</h2>
${htmlTable('Ranks', ['rank', 'lost in the mean', 'lost at worst', 'weight that reaches it'], rankRows(modules))}
<p class="quiet">Lost: ‖M − trunc(M)‖ / ‖M‖ of a matrix, what an adapter of that rank cannot hold of the merged one.</p>
<h2>Energy by rank</h2>
${lineChart({
  title: 'Energy by rank',
  description: `Share of the squared norm in the first directions; all matrices thin, their mean strong.`,
  xLabel: 'directions',
  yLabel: 'share of ‖M‖²',
  yTicks: SHARE_TICKS,
  lines: lines(energies),
  mark,
})}
<h2>What a rank loses</h2>
${lineChart({
  title: 'What a rank loses',
  description: `‖M − trunc(M)‖ over ‖M‖ by rank; all matrices thin, their mean strong.`,
  xLabel: 'rank',
  yLabel: 'truncation error',
  yTicks: SHARE_TICKS,
  lines: lines(losses),
  mark,
})}
<h2>Matrices</h2>
${htmlTable(
  'Matrices',
  ['matrix', 'shape', 'lost', 'effective rank', 'σ₁', 'directions'],
  worst.map(({ module, shape, lost: of, effectiveRank, sigma }) => [
    module,
    shape.join(' × '),
    percent(of),
    effectiveRank.toFixed(1),
    (sigma[0] ?? 0).toPrecision(3),
    sigma.length,
  ]),
)}
</main>
</body>
</html>
`;
}
