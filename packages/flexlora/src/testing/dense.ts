// Dense matrices for tests only, computed another way than the code under test: plain sums, and a singular value
// decomposition by two-sided Jacobi rotations on the Gram matrix.
import { seededStream } from '../random.ts';
import { type Factors, isLowRank, type LowRank, type State } from '../types.ts';

/** Row-major. */
export interface Dense {
  readonly rows: number;
  readonly cols: number;
  readonly data: Float64Array;
}

export const dense = (rows: number, cols: number, at: (i: number, j: number) => number): Dense => ({
  rows,
  cols,
  data: Float64Array.from({ length: rows * cols }, (_, k) => at(Math.floor(k / cols), k % cols)),
});

export const at = ({ cols, data }: Dense, i: number, j: number): number => data[i * cols + j] ?? Number.NaN;

/** data += left · right, [rows, depth] · [depth, cols], `right` row-major. */
function accumulate(
  data: Float64Array,
  [rows, depth, cols]: readonly [number, number, number],
  left: (i: number, k: number) => number,
  right: Factors['a'],
): void {
  for (let i = 0; i < rows; i += 1) {
    for (let k = 0; k < depth; k += 1) {
      const factor = left(i, k);
      for (let j = 0; j < cols; j += 1)
        data[i * cols + j] = (data[i * cols + j] ?? Number.NaN) + factor * (right[k * cols + j] ?? Number.NaN);
    }
  }
}

export function multiply(a: Dense, b: Dense): Dense {
  const data = new Float64Array(a.rows * b.cols);
  accumulate(data, [a.rows, a.cols, b.cols], (i, k) => at(a, i, k), b.data);
  return { rows: a.rows, cols: b.cols, data };
}

export const transposed = (a: Dense): Dense => dense(a.cols, a.rows, (i, j) => at(a, j, i));

export const sum = (terms: readonly (readonly [number, Dense])[]): Dense => {
  const [first] = terms;
  if (!first) throw new Error('nothing to sum');
  return dense(first[1].rows, first[1].cols, (i, j) => terms.reduce((s, [w, m]) => s + w * at(m, i, j), 0));
};

export const norm = ({ data }: Dense): number => Math.sqrt(data.reduce((s, value) => s + value * value, 0));

/** ‖a − b‖ / ‖b‖, or ‖a‖ where b is zero. */
export const distance = (a: Dense, b: Dense): number => {
  const difference = norm(
    sum([
      [1, a],
      [-1, b],
    ]),
  );
  return norm(b) === 0 ? difference : difference / norm(b);
};

/** Σ weight · scale · B · A. */
export function denseSum(terms: readonly { readonly weight: number; readonly factors: Factors }[]): Dense {
  const [first] = terms;
  if (!first) throw new Error('nothing to sum');
  const { out, in: inner } = first.factors;
  const data = new Float64Array(out * inner);
  for (const { weight, factors } of terms) {
    const { rank, scale, a, b } = factors;
    accumulate(data, [out, rank, inner], (i, k) => weight * scale * (b[i * rank + k] ?? Number.NaN), a);
  }
  return { rows: out, cols: inner, data };
}

/** scale · B · A. */
export const productOf = (factors: Factors): Dense => denseSum([{ weight: 1, factors }]);

/** U · diag(σ·gain) · Vᵀ. */
export function denseOf({ out, in: inner, rank, u, sigma, v }: LowRank, gain: (k: number) => number = () => 1): Dense {
  const data = new Float64Array(out * inner);
  const left = (i: number, k: number): number => (u[k * out + i] ?? Number.NaN) * (sigma[k] ?? Number.NaN) * gain(k);
  accumulate(data, [out, rank, inner], left, v);
  return { rows: out, cols: inner, data };
}

/** Eigenvalues (descending) and vectors (columns) of a symmetric matrix: cyclic two-sided Jacobi. */
export function eigen(symmetric: Dense): { values: number[]; vectors: Dense } {
  const n = symmetric.rows;
  const m = symmetric.data.slice();
  const v = dense(n, n, (i, j) => (i === j ? 1 : 0)).data;
  const get = (x: Float64Array, i: number, j: number): number => x[i * n + j] ?? Number.NaN;
  for (let sweep = 0; sweep < 40; sweep += 1) {
    let off = 0;
    for (let i = 0; i < n; i += 1) for (let j = 0; j < i; j += 1) off += get(m, i, j) ** 2;
    if (off <= 1e-32 * m.reduce((s, x) => s + x * x, 0)) break;
    for (let p = 0; p < n; p += 1) {
      for (let q = p + 1; q < n; q += 1) {
        const apq = get(m, p, q);
        if (apq === 0) continue;
        const theta = (get(m, q, q) - get(m, p, p)) / (2 * apq);
        const t = (theta >= 0 ? 1 : -1) / (Math.abs(theta) + Math.hypot(1, theta));
        const c = 1 / Math.hypot(1, t);
        const s = t * c;
        for (let k = 0; k < n; k += 1) {
          const [kp, kq] = [get(m, k, p), get(m, k, q)];
          m[k * n + p] = c * kp - s * kq;
          m[k * n + q] = s * kp + c * kq;
        }
        for (let k = 0; k < n; k += 1) {
          const [pk, qk] = [get(m, p, k), get(m, q, k)];
          m[p * n + k] = c * pk - s * qk;
          m[q * n + k] = s * pk + c * qk;
          const [vp, vq] = [get(v, k, p), get(v, k, q)];
          v[k * n + p] = c * vp - s * vq;
          v[k * n + q] = s * vp + c * vq;
        }
      }
    }
  }
  const order = Array.from({ length: n }, (_, i) => i).sort((a, b) => get(m, b, b) - get(m, a, a));
  return {
    values: order.map((i) => get(m, i, i)),
    vectors: dense(n, n, (i, j) => get(v, i, order[j] ?? 0)),
  };
}

/** Singular values (descending) of a dense matrix and its best approximation at any rank, through the smaller Gram matrix. */
export function denseSvd(m: Dense): { sigma: number[]; truncate: (rank: number) => Dense } {
  const tall = m.rows > m.cols;
  const { values, vectors } = eigen(tall ? multiply(transposed(m), m) : multiply(m, transposed(m)));
  return {
    sigma: values.map((value) => Math.sqrt(Math.max(0, value))),
    truncate: (rank) => {
      const basis = dense(vectors.rows, Math.min(rank, vectors.cols), (i, j) => at(vectors, i, j));
      const projector = multiply(basis, transposed(basis));
      return tall ? multiply(m, projector) : multiply(projector, m);
    },
  };
}

/** The update that a state stands for. */
export const denseOfState = (state: State): Dense => (isLowRank(state) ? denseOf(state) : productOf(state));

/** A matrix of uniform numbers in [−1, 1). */
export function randomDense(rows: number, cols: number, ...seed: (string | number)[]): Dense {
  const draw = seededStream('test', ...seed);
  return dense(rows, cols, draw);
}

/** `cols` orthonormal columns (modified Gram–Schmidt, twice). */
export function randomOrthonormal(rows: number, cols: number, ...seed: (string | number)[]): Dense {
  const m = randomDense(rows, cols, 'orthonormal', ...seed).data;
  for (let k = 0; k < cols; k += 1) {
    for (let pass = 0; pass < 2; pass += 1) {
      for (let j = 0; j < k; j += 1) {
        let s = 0;
        for (let i = 0; i < rows; i += 1) s += (m[i * cols + j] ?? 0) * (m[i * cols + k] ?? 0);
        for (let i = 0; i < rows; i += 1) m[i * cols + k] = (m[i * cols + k] ?? 0) - s * (m[i * cols + j] ?? 0);
      }
      let length = 0;
      for (let i = 0; i < rows; i += 1) length += (m[i * cols + k] ?? 0) ** 2;
      for (let i = 0; i < rows; i += 1) m[i * cols + k] = (m[i * cols + k] ?? 0) / Math.sqrt(length);
    }
  }
  return { rows, cols, data: m };
}

/** Random factors; `wide` keeps them in float64. */
export function randomFactors(
  shape: { out: number; in: number; rank: number; scale?: number; wide?: boolean },
  ...seed: (string | number)[]
): Factors {
  const { out, in: columns, rank, scale = 2, wide = false } = shape;
  const a = randomDense(rank, columns, 'a', ...seed).data;
  const b = randomDense(out, rank, 'b', ...seed).data;
  return {
    out,
    in: columns,
    rank,
    scale,
    a: wide ? a : Float32Array.from(a),
    b: wide ? b : Float32Array.from(b),
  };
}

/** Largest entry of |XᵀX − 1| of the columns of `x`. */
export const orthonormalityError = (x: Dense): number =>
  multiply(transposed(x), x).data.reduce(
    (max, value, k) => Math.max(max, Math.abs(value - (Math.floor(k / x.cols) === k % x.cols ? 1 : 0))),
    0,
  );

/** Vectors stored one after another, as rows. */
export const rowsOf = (data: ArrayLike<number>, length: number): Dense =>
  dense(data.length / length, length, (i, j) => data[i * length + j] ?? Number.NaN);

/** errors[r] = ‖whole − the first r directions of `update`‖, r from 0 to its rank. */
export function truncationErrors({ out, in: inner, rank, u, sigma, v }: LowRank, whole: Dense): number[] {
  const rest = { ...whole, data: whole.data.slice() };
  const errors = [norm(rest)];
  for (let k = 0; k < rank; k += 1) {
    const left = (i: number): number => -(sigma[k] ?? Number.NaN) * (u[k * out + i] ?? Number.NaN);
    accumulate(rest.data, [out, 1, inner], left, v.subarray(k * inner, (k + 1) * inner));
    errors.push(norm(rest));
  }
  return errors;
}

/** The same product of other factors: B·G and G⁻¹·A, G with singular values from 1 to `condition`. In float64. */
export function regauged(factors: Factors, condition: number, ...seed: (string | number)[]): Factors {
  const { out, in: inner, rank } = factors;
  const left = randomOrthonormal(rank, rank, 'gauge', 'left', ...seed);
  const right = transposed(randomOrthonormal(rank, rank, 'gauge', 'right', ...seed));
  const stretch = (i: number): number => condition ** (rank > 1 ? i / (rank - 1) : 1);
  const g = multiply(
    left,
    dense(rank, rank, (i, j) => stretch(i) * at(right, i, j)),
  );
  const inverse = multiply(
    transposed(right),
    dense(rank, rank, (i, j) => at(left, j, i) / stretch(i)),
  );
  return {
    ...factors,
    a: multiply(
      inverse,
      dense(rank, inner, (i, j) => factors.a[i * inner + j] ?? Number.NaN),
    ).data,
    b: multiply(
      dense(out, rank, (i, j) => factors.b[i * rank + j] ?? Number.NaN),
      g,
    ).data,
  };
}
