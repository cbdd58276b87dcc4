import { describe, expect, it } from 'vitest';
import { type ChartSpec, chartShape, chartTable, sameFigures, stack } from './chart-spec.ts';

const spec: ChartSpec = {
  title: 'loss',
  x: [0, 1, 2],
  xLabel: 'round',
  yLabel: 'loss',
  format: (value) => value.toFixed(3),
  rightLabel: 'time',
  rightFormat: (value) => `${value} s`,
  series: [
    { label: 'rooms', colour: '--accent', values: [5.5, null, 4.25] },
    { label: 'merge', colour: '--warning', values: [null, null, 3], axis: 'right' },
    { label: 'shade', colour: '--line', values: [1, 1, 1], decoration: true },
  ],
};

describe('a chart as a table', () => {
  it('has a row for every x with a figure, each in its unit, without decorations', () => {
    expect(chartTable(spec)).toEqual({
      columns: ['round', 'rooms', 'merge'],
      rows: [
        ['0', '5.500', '–'],
        ['2', '4.250', '3 s'],
      ],
    });
  });

  it('shows the figures behind stacked bars, not the sums', () => {
    const stacked = { ...spec, series: [{ label: 'rank 4', colour: 'red', values: [7, 7, 7], shown: [1, 2, 3] }] };
    expect(chartTable(stacked).rows.map((row) => row[1])).toEqual(['1.000', '2.000', '3.000']);
  });
});

describe('stacking', () => {
  it('adds series up and keeps empty places empty', () => {
    expect(
      stack([
        [1, null, null],
        [2, 3, null],
      ]),
    ).toEqual([
      [1, 0, null],
      [3, 3, null],
    ]);
  });
});

describe('the shape of a chart', () => {
  it('stays when only figures change', () => {
    expect(chartShape({ ...spec, x: [0, 1, 2, 3] })).toBe(chartShape(spec));
    expect(chartShape({ ...spec, series: spec.series.slice(1) })).not.toBe(chartShape(spec));
  });
});

describe('figures', () => {
  it('are the same until one value differs, wherever it stands', () => {
    const copy = structuredClone({ ...spec, format: undefined, rightFormat: undefined }) as unknown as ChartSpec;
    expect(sameFigures(spec, copy)).toBe(true);
    const changed = spec.series.map((series, i) => (i === 0 ? { ...series, values: [5.5, 5, 4.25] } : series));
    expect(sameFigures(spec, { ...spec, series: changed })).toBe(false);
    expect(sameFigures(spec, { ...spec, x: [0, 1, 2, 3] })).toBe(false);
  });
});
