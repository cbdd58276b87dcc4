// What a chart shows, as data: the same spec is drawn by chart.tsx and written out as a table. Pure.

export interface ChartSeries {
  readonly label: string;
  /** A CSS colour, or a token such as `--accent`. */
  readonly colour: string;
  /** One value per x; null leaves a gap. */
  readonly values: readonly (number | null)[];
  readonly kind?: 'line' | 'bars';
  /** Line width in CSS pixels. */
  readonly width?: number;
  readonly dashed?: boolean;
  /** 'right' draws it against a second axis. */
  readonly axis?: 'left' | 'right';
  /** Drawn but left out of legend and table. */
  readonly decoration?: boolean;
  /** What the table and legend show where it differs from what is drawn (stacked bars). */
  readonly shown?: readonly (number | null)[];
}

export interface ChartSpec {
  readonly title: string;
  readonly x: readonly number[];
  readonly xLabel: string;
  readonly yLabel: string;
  readonly series: readonly ChartSeries[];
  readonly format: (value: number) => string;
  readonly rightLabel?: string;
  readonly rightFormat?: (value: number) => string;
  readonly logarithmic?: boolean;
  /** No axis titles, narrow axes: for a chart whose caption says it all. */
  readonly compact?: boolean;
  /** Fixed range of x; else the data's. */
  readonly xRange?: readonly [number, number];
}

export interface ChartTable {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** The chart's figures as text, a row for each x that has any. */
export function chartTable(spec: ChartSpec): ChartTable {
  const listed = spec.series.filter((series) => !series.decoration);
  const unit = (series: ChartSeries) => (series.axis === 'right' ? spec.rightFormat : undefined) ?? spec.format;
  const rows = spec.x.flatMap((x, i) => {
    const values = listed.map((series) => (series.shown ?? series.values)[i] ?? null);
    if (values.every((value) => value === null)) return [];
    return [[String(x), ...values.map((value, s) => (value === null ? '–' : unit(listed[s] as ChartSeries)(value)))]];
  });
  return { columns: [spec.xLabel, ...listed.map((series) => series.label)], rows };
}

/** Running sums over series, so that bars drawn largest first look stacked. Nulls count as 0 unless all are null. */
export function stack(series: readonly (readonly (number | null)[])[]): (number | null)[][] {
  const length = Math.max(0, ...series.map((values) => values.length));
  const sums = Array.from({ length }, () => 0);
  return series.map((values) =>
    sums.map((_, i) => {
      sums[i] = (sums[i] ?? 0) + (values[i] ?? 0);
      return series.every((each) => (each[i] ?? null) === null) ? null : (sums[i] ?? 0);
    }),
  );
}

/** Whether two specs of one shape draw the same figures. */
export function sameFigures(a: ChartSpec, b: ChartSpec): boolean {
  const equal = (left: readonly unknown[], right: readonly unknown[]) =>
    left.length === right.length && left.every((value, i) => value === right[i]);
  return equal(a.x, b.x) && a.series.every((series, i) => equal(series.values, b.series[i]?.values ?? []));
}

/** Shape of a spec without its figures: a chart whose shape stays is given new data, one whose shape changes is rebuilt. */
export function chartShape(spec: ChartSpec): string {
  const { series, xLabel, yLabel, rightLabel, logarithmic, compact, xRange } = spec;
  const drawn = series.map(({ label, colour, kind, width, dashed, axis }) => [
    label,
    colour,
    kind,
    width,
    dashed,
    axis,
  ]);
  return JSON.stringify([drawn, xLabel, yLabel, rightLabel, logarithmic, compact, xRange]);
}
