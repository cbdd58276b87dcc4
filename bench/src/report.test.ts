import { describe, expect, it } from 'vitest';
import { chartsOf } from './charts.ts';
import { rowsOf, summarise } from './gates.ts';
import { barChart } from './plot.ts';
import { fileStem, formatFigure, markdownPage, type Report, textTable } from './report.ts';
import type { SuiteResult } from './result.ts';

const result: SuiteResult = {
  adapter: {
    vendor: 'nvidia',
    architecture: 'hopper',
    device: '',
    description: 'NVIDIA H100 80GB <HBM3>',
    features: ['shader-f16'],
    class: 'gpu',
  },
  peaks: { gflops: 100, gigabytes: 10, loadGigabytes: null, f16Gflops: null, gigaexps: null },
  libraries: ['weft', '@jax-js/jax 0'],
  measurements: [
    {
      id: 'step-s026',
      group: 'step',
      what: 'S0.26',
      timings: [
        { name: 'weft', median: 10, low: 9, high: 12, samples: 3, firstMs: 50 },
        { name: '@jax-js/jax 0', median: null, low: null, high: null, samples: 0, firstMs: null, error: 'a | b\nc' },
      ],
      flops: 1e9,
      bytes: 0,
      exps: 0,
      yardsticks: {},
      facts: { tokens: 1024 },
    },
  ],
  seconds: 12,
};
const rows = rowsOf(result, () => undefined);
const report: Report = {
  bench: 'weft',
  name: 'NVIDIA H100 80GB <HBM3>',
  mode: 'full',
  date: '2027-01-02T03:04:05.000Z',
  command: 'npm run bench',
  commit: 'abc',
  host: { kind: 'node', version: '20.19.0' },
  platform: 'linux x64',
  processor: 'a processor',
  processors: 2,
  result,
  rows,
  summary: summarise(rows),
};

describe('the report', () => {
  it('names files after the adapter, software adapters after their class', () => {
    expect(fileStem(result, report.host)).toBe('nvidia-h100-80gb-hbm3-node');
    const lavapipe = { adapter: { ...result.adapter, class: 'lavapipe' as const } };
    expect(fileStem(lavapipe, { kind: 'chromium', version: '1' })).toBe('lavapipe-chromium');
  });

  it('prints figures short, and nothing as a number that is none', () => {
    expect([12_345.6, 123.4, 12.34, 1.234, 0.000_12, 3, null].map(formatFigure)).toEqual([
      '12,346',
      '123',
      '12.3',
      '1.23',
      '1.2e-4',
      '3',
      '–',
    ]);
  });

  it('says in table and page what failed, on which adapter, made by which command', () => {
    const text = textTable(rows);
    expect(text).toContain('FAILED');
    expect(text.split('\n')).toHaveLength(rows.length + 1);
    const page = markdownPage(report, [{ file: 'x.svg', title: 'Steps' }]);
    for (const part of ['NVIDIA H100', 'npm run bench', 'commit abc', '![Steps](x.svg)', 'a \\| b c'])
      expect(page).toContain(part);
    // Every line of a table has as many cells as its head.
    const cellsOf = (line: string) => line.replace(/\\\|/g, '').split('|').length;
    let head = 0;
    for (const line of page.split('\n')) {
      if (!line.startsWith('|')) head = 0;
      else if (head === 0) head = cellsOf(line);
      else expect(cellsOf(line), line).toBe(head);
    }
  });

  it('draws what could not be measured as nothing, and escapes names', () => {
    const [steps] = chartsOf(report);
    expect(steps?.svg).toContain('&lt;HBM3&gt;');
    expect(steps?.svg).not.toMatch(/NaN|Infinity|<HBM3>/);
    expect(steps?.svg).toContain('<desc');
  });
});

describe('a chart', () => {
  it('draws bars to scale, with the gate where it is', () => {
    const svg = barChart({
      title: 't',
      description: 'd',
      groups: [
        {
          heading: '',
          bars: [
            { label: 'a', value: 50, text: '50', series: 0, gate: 100 },
            { label: 'b', value: 25, text: '25', series: 1 },
          ],
        },
      ],
    });
    const widths = [...svg.matchAll(/<rect [^>]*width="([\d.]+)"/g)].map(([, width]) => Number(width));
    expect(widths[0]).toBe(2 * (widths[1] ?? 0));
    const line = Number(/<line [^>]*x1="([\d.]+)"/.exec(svg)?.[1]);
    const start = Number(/<rect [^>]* x="(\d+)"/.exec(svg)?.[1]);
    expect(line - start).toBe(2 * (widths[0] ?? 0));
  });
});
