// Which measurement explains that a row misses its gate: row and class of adapter to a heading in docs/benchmarks. An entry
// is no excuse by itself: the heading must exist, and what stands under it must show why no more can be had.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Explain } from './gates.ts';
import type { AdapterClass } from './result.ts';

/** `row` is a row's id, or its beginning where all such rows miss for one reason; `by` a file and heading in docs/benchmarks. */
export interface Explanation {
  readonly adapter: AdapterClass;
  readonly row: string;
  readonly by: `${string}.md#${string}`;
}

const PAGE = 'README.md';
const PRODUCTS = ['nt', 'nn'].flatMap((kind) => [512, 1024, 2048].map((size) => `matmul-${kind}-${size}`));
const explained = (adapter: AdapterClass, anchor: string, ...rows: string[]): Explanation[] =>
  rows.map((row) => ({ adapter, row, by: `${PAGE}#${anchor}` }));

export const EXPLAINED: readonly Explanation[] = [
  ...explained('lavapipe', 'products-on-lavapipe-wait-for-loads', ...PRODUCTS.map((id) => `${id}/share`)),
  ...explained('lavapipe', 'wide-products-on-lavapipe-walk-over-pages', 'matmul-nn-1024', 'matmul-nn-2048'),
  ...explained('lavapipe', 'steps-of-s15-on-lavapipe-are-products-and-attention', 'step-s15-4k/peer'),
  ...explained('lavapipe', 'passes-move-no-faster', 'adamw/share'),
  ...explained('lavapipe', 'rmsnorm-reads-rows-twice', 'norm-forward/share', 'norm-backward/share'),
  ...explained('swiftshader', 'products-on-swiftshader-pay-for-sums', ...PRODUCTS),
  ...explained(
    'swiftshader',
    'steps-of-s15-on-swiftshader-are-products',
    ...['s15-32k', 's15-4k'].flatMap((shape) => [`step-${shape}/peer`, `step-${shape}/mfu`]),
  ),
  ...explained('swiftshader', 'rmsnorm-reads-rows-twice', 'norm-forward/share', 'norm-backward/share'),
  ...explained(
    'swiftshader',
    'passes-move-no-faster',
    ...['swiglu-forward', 'swiglu-backward', 'adamw', 'cross-entropy'].map((id) => `${id}/share`),
  ),
  ...explained('swiftshader', 'the-step-of-s026-on-swiftshader-is-short-products', 'step-s026/peer'),
];

/** The anchors of a Markdown file's headings, as GitHub makes them. */
export function anchorsOf(markdown: string): Set<string> {
  const headings = markdown.split('\n').flatMap((line) => /^#{1,6}\s+(.*?)\s*$/.exec(line)?.[1] ?? []);
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .replace(/\s/g, '-'),
    ),
  );
}

/** Explanations whose heading does not exist under `folder`, as lines for a reader. */
export function brokenExplanations(explained: readonly Explanation[], folder: string): string[] {
  return explained.flatMap(({ row, by }) => {
    const [file = '', anchor = ''] = by.split('#');
    const path = join(folder, file);
    if (!existsSync(path)) return [`${row}: there is no docs/benchmarks/${file}`];
    return anchorsOf(readFileSync(path, 'utf8')).has(anchor)
      ? []
      : [`${row}: docs/benchmarks/${file} has no heading #${anchor}`];
  });
}

/** Looks explanations up; the longest row that fits counts. */
export function explainBy(explained: readonly Explanation[]): Explain {
  return (adapter, row) =>
    explained
      .filter((each) => each.adapter === adapter && row.startsWith(each.row))
      .sort((a, b) => b.row.length - a.row.length)[0]?.by;
}
