// RMSNorm (Zhang and Sennrich 2019) in float64: y = x · rstd · weight, rstd = 1/√(mean(x²) + ε).
import { at, build, type Numbers, sumOf } from './numbers.ts';

/** x [N, D], weight [D] → y [N, D], rstd [N]. */
export function rmsNorm(x: Numbers, weight: Numbers, eps: number): { y: Float64Array; rstd: Float64Array } {
  const width = weight.length;
  const rstd = build(x.length / width, (row) => {
    const mean = sumOf(width, (i) => at(x, row * width + i) ** 2) / width;
    return 1 / Math.sqrt(mean + eps);
  });
  const y = build(x.length, (i) => at(x, i) * at(rstd, Math.floor(i / width)) * at(weight, i % width));
  return { y, rstd };
}

/** dx [N, D] from dy [N, D]: dx = rstd·g − x·rstd³·mean(g·x), g = dy·weight. */
export function rmsNormGradient(x: Numbers, weight: Numbers, rstd: Numbers, dy: Numbers): Float64Array {
  const width = weight.length;
  const mean = build(
    x.length / width,
    (row) => sumOf(width, (i) => at(dy, row * width + i) * at(weight, i) * at(x, row * width + i)) / width,
  );
  return build(x.length, (i) => {
    const row = Math.floor(i / width);
    const scale = at(rstd, row);
    return scale * at(dy, i) * at(weight, i % width) - at(x, i) * scale ** 3 * at(mean, row);
  });
}
