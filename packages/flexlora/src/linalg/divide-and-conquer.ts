// The singular value decomposition of a bidiagonal matrix by divide and conquer (Gu and Eisenstat, 1995; LAPACK's dbdsdc):
// halves that are known, and a row between them, make an arrow matrix whose singular values are the roots of a secular
// equation. Vectors come from products of matrices; what the row does not touch is left as it is (deflation).
import { type Columns, columns } from './columns.ts';
import { jacobiSvd } from './jacobi.ts';
import { addProduct, view } from './product.ts';
import { secularRoots } from './secular.ts';

/** Below this the halves are decomposed by rotations. */
const LEAF = 24;

/** [rows, rows + extra] = U · (diag(σ) 0) · Vᵀ, σ ascending; with `extra` the last column of V spans what it does not reach. */
interface Part {
  readonly u: Columns;
  readonly sigma: Float64Array;
  readonly v: Columns;
}

/**
 * U · diag(sigma) · Vᵀ of the upper bidiagonal matrix: all of sigma, descending, and the first `vectors` columns of U and V.
 * Throws MergeError 'no-convergence'.
 */
export function decomposeBidiagonal(diagonal: Float64Array, above: Float64Array, vectors = diagonal.length): Part {
  const n = diagonal.length;
  const count = Math.min(n, vectors);
  const { u, sigma, v } = decompose(diagonal, above, 0, n, 0, count);
  const first = columns(n, count);
  const second = columns(n, count);
  for (let k = 0; k < count; k += 1) {
    const from = u.cols - 1 - k;
    first.data.set(u.data.subarray(from * n, (from + 1) * n), k * n);
    second.data.set(v.data.subarray(from * n, (from + 1) * n), k * n);
  }
  return { u: first, sigma: sigma.reverse(), v: second };
}

/** `wanted`: how many vectors of the largest singular values; all but at the top. */
function decompose(
  diagonal: Float64Array,
  above: Float64Array,
  first: number,
  rows: number,
  extra: 0 | 1,
  wanted = rows,
): Part {
  if (rows <= LEAF) return leaf(diagonal, above, first, rows, extra);
  const top = Math.floor(rows / 2);
  const upper = decompose(diagonal, above, first, top, 1);
  const lower = decompose(diagonal, above, first + top + 1, rows - top - 1, extra);
  return join(upper, diagonal[first + top] as number, above[first + top] as number, lower, extra, wanted);
}

function leaf(diagonal: Float64Array, above: Float64Array, first: number, rows: number, extra: 0 | 1): Part {
  const cols = rows + extra;
  const matrix = columns(rows, cols);
  for (let i = 0; i < rows; i += 1) {
    matrix.data[i * rows + i] = diagonal[first + i] as number;
    if (i + 1 < cols) matrix.data[(i + 1) * rows + i] = above[first + i] as number;
  }
  const found = jacobiSvd(matrix, 0);
  const rank = found.lengths.length;
  const order = Array.from({ length: rank }, (_, k) => k).sort(
    (a, b) => (found.lengths[a] as number) - (found.lengths[b] as number) || a - b,
  );
  const u = columns(rows, rows);
  const v = columns(cols, cols);
  const sigma = new Float64Array(rows);
  // Singular values of 0 come first, with vectors that the others leave; what V has beyond them comes last.
  const zeros = Array.from({ length: rows - rank }, (_, k) => k);
  for (const [i, k] of order.entries()) {
    const to = zeros.length + i;
    sigma[to] = found.lengths[k] as number;
    u.data.set(found.u.data.subarray(k * rows, (k + 1) * rows), to * rows);
    v.data.set(found.v.data.subarray(k * cols, (k + 1) * cols), to * cols);
  }
  complete(u, zeros);
  complete(v, extra ? [...zeros, rows] : zeros);
  return { u, sigma, v };
}

/** Fills columns of a square matrix so that all are orthonormal: unit vectors, less what the others hold of them. */
function complete({ rows: n, data }: Columns, missing: readonly number[]): void {
  const known = new Set(Array.from({ length: n }, (_, k) => k).filter((k) => !missing.includes(k)));
  for (const k of missing) {
    const at = k * n;
    let best = 0;
    for (let axis = 0; axis < n && best < 0.5 / Math.sqrt(n); axis += 1) {
      data.fill(0, at, at + n);
      data[at + axis] = 1;
      for (let pass = 0; pass < 2; pass += 1) {
        for (const j of known) {
          let sum = 0;
          for (let i = 0; i < n; i += 1) sum += (data[j * n + i] as number) * (data[at + i] as number);
          for (let i = 0; i < n; i += 1) data[at + i] = (data[at + i] as number) - sum * (data[j * n + i] as number);
        }
      }
      best = Math.sqrt(data.subarray(at, at + n).reduce((sum, value) => sum + value * value, 0));
    }
    for (let i = 0; i < n; i += 1) data[at + i] = (data[at + i] as number) / best;
    known.add(k);
  }
}

/** Turns columns x and y: x ← c·x + s·y, y ← c·y − s·x. */
function turn({ rows, data }: Columns, x: number, y: number, c: number, s: number): void {
  for (let i = 0; i < rows; i += 1) {
    const [a, b] = [data[x * rows + i] as number, data[y * rows + i] as number];
    data[x * rows + i] = c * a + s * b;
    data[y * rows + i] = c * b - s * a;
  }
}

/** In which half a column of the joined bases has entries. */
const UPPER = 1;
const LOWER = 2;

/** The decomposition of [upper 0; 0 … alpha, beta … 0; 0 lower]. */
function join(upper: Part, alpha: number, beta: number, lower: Part, extra: 0 | 1, wanted: number): Part {
  const top = upper.sigma.length;
  const bottom = lower.sigma.length;
  const n = top + 1 + bottom;
  const m = n + extra;
  // Bases of the arrow matrix: column 0 is the row between, then the singular vectors of the halves.
  const u = columns(n, n);
  const v = columns(m, m);
  u.data[top] = 1;
  const d = new Float64Array(n);
  const z = new Float64Array(n);
  const half = new Uint8Array(n);
  const lowerCols = bottom + extra;
  const nullUpper = alpha * (upper.v.data[top * (top + 1) + top] as number);
  const nullLower = extra ? beta * (lower.v.data[bottom * lowerCols] as number) : 0;
  const length = Math.sqrt(nullUpper * nullUpper + nullLower * nullLower);
  const [c, s] = length === 0 ? [1, 0] : [nullUpper / length, nullLower / length];
  for (let i = 0; i <= top; i += 1) {
    const value = upper.v.data[top * (top + 1) + i] as number;
    v.data[i] = c * value;
    if (extra) v.data[n * m + i] = -s * value;
  }
  if (extra) {
    for (let i = 0; i < lowerCols; i += 1) {
      const value = lower.v.data[bottom * lowerCols + i] as number;
      v.data[top + 1 + i] = s * value;
      v.data[n * m + top + 1 + i] = c * value;
    }
  }
  z[0] = length;
  half[0] = extra ? UPPER | LOWER : UPPER;
  // The singular vectors of both, by ascending value.
  for (let k = 1, i = 0, j = 0; k < n; k += 1) {
    const fromUpper = j >= bottom || (i < top && (upper.sigma[i] as number) <= (lower.sigma[j] as number));
    if (fromUpper) {
      d[k] = upper.sigma[i] as number;
      z[k] = alpha * (upper.v.data[i * (top + 1) + top] as number);
      u.data.set(upper.u.data.subarray(i * top, (i + 1) * top), k * n);
      v.data.set(upper.v.data.subarray(i * (top + 1), (i + 1) * (top + 1)), k * m);
      half[k] = UPPER;
      i += 1;
    } else {
      d[k] = lower.sigma[j] as number;
      z[k] = beta * (lower.v.data[j * lowerCols] as number);
      u.data.set(lower.u.data.subarray(j * bottom, (j + 1) * bottom), k * n + top + 1);
      v.data.set(lower.v.data.subarray(j * lowerCols, (j + 1) * lowerCols), k * m + top + 1);
      half[k] = LOWER;
      j += 1;
    }
  }
  // What is smaller than rounding of the whole counts as zero, and values closer than that as equal.
  const noise = 8 * Number.EPSILON * Math.max(d[n - 1] as number, Math.abs(alpha), Math.abs(beta));
  if ((z[0] as number) <= noise) z[0] = noise;
  const live = noise > 0 ? [0] : [];
  const settled = noise > 0 ? [] : [0];
  let before = -1;
  for (let k = 1; k < n; k += 1) {
    if (Math.abs(z[k] as number) <= noise) {
      settled.push(k);
      continue;
    }
    if (before >= 0 && (d[k] as number) - (d[before] as number) <= noise) {
      const [sine, cosine] = [z[before] as number, z[k] as number];
      const both = Math.sqrt(sine * sine + cosine * cosine);
      // The earlier one is left with nothing of z.
      turn(u, before, k, cosine / both, -sine / both);
      turn(v, before, k, cosine / both, -sine / both);
      z[k] = both;
      z[before] = 0;
      half[k] = half[before] = (half[k] as number) | (half[before] as number);
      settled.push(before);
      live.pop();
    }
    live.push(k);
    before = k;
  }
  const count = live.length;
  const poles = Float64Array.from(live, (k) => d[k] as number);
  // Apart from 0, so that the first two poles are distinct; half the noise is no error that counts.
  if (count > 1) poles[1] = Math.max(poles[1] as number, noise / 2);
  const weights = Float64Array.from(live, (k) => z[k] as number);
  const { omega, differences } = secularRoots(poles, weights);
  // By ascending value: those that were settled, and the roots, whose vectors are made now.
  const all = [
    ...settled.map((k) => ({ value: d[k] as number, settled: k, root: -1 })),
    ...Array.from(omega, (value, root) => ({ value, settled: -1, root })),
  ].sort((x, y) => x.value - y.value);
  const kept = all.slice(n - wanted);
  const roots = kept.flatMap(({ root }) => (root < 0 ? [] : [root]));
  const [left, right] = arrowVectors(poles, weights, differences, roots);
  const turnedU = columns(n, roots.length);
  const turnedV = columns(m, roots.length);
  multiplyHalves(u, live, half, left, turnedU, top, top + 1, true);
  multiplyHalves(v, live, half, right, turnedV, top + 1, top + 1, false);
  const result = {
    u: columns(n, wanted),
    sigma: Float64Array.from(all, ({ value }) => value),
    v: columns(m, wanted + extra),
  };
  let turned = 0;
  for (const [to, from] of kept.entries()) {
    const isRoot = from.root >= 0;
    const k = isRoot ? turned : from.settled;
    if (isRoot) turned += 1;
    result.u.data.set((isRoot ? turnedU : u).data.subarray(k * n, (k + 1) * n), to * n);
    result.v.data.set((isRoot ? turnedV : v).data.subarray(k * m, (k + 1) * m), to * m);
  }
  if (extra) result.v.data.set(v.data.subarray(n * m, (n + 1) * m), wanted * m);
  return result;
}

/** Singular vectors of the arrow matrix whose singular values are exactly omega: z is what those make it (Löwner's formula). */
function arrowVectors(
  d: Float64Array,
  z: Float64Array,
  differences: Float64Array,
  roots: readonly number[],
): [left: Columns, right: Columns] {
  const n = d.length;
  const exact = new Float64Array(n);
  const distance = (i: number, k: number): number =>
    ((d[i] as number) - (d[k] as number)) * ((d[i] as number) + (d[k] as number));
  for (let k = 0; k < n; k += 1) {
    let square = -(differences[(n - 1) * n + k] as number);
    for (let i = 0; i < k; i += 1) square *= -(differences[i * n + k] as number) / distance(i, k);
    for (let i = k; i < n - 1; i += 1) square *= -(differences[i * n + k] as number) / distance(i + 1, k);
    const size = Math.sqrt(Math.abs(square));
    exact[k] = (z[k] as number) < 0 ? -size : size;
  }
  const left = columns(n, roots.length);
  const right = columns(n, roots.length);
  for (const [to, i] of roots.entries()) {
    let [ofLeft, ofRight] = [1, 0];
    for (let k = 0; k < n; k += 1) {
      const value = (exact[k] as number) / (differences[i * n + k] as number);
      const scaled = k === 0 ? -1 : (d[k] as number) * value;
      right.data[to * n + k] = value;
      left.data[to * n + k] = scaled;
      ofRight += value * value;
      if (k > 0) ofLeft += scaled * scaled;
    }
    const [lengthLeft, lengthRight] = [Math.sqrt(ofLeft), Math.sqrt(ofRight)];
    for (let k = 0; k < n; k += 1) {
      right.data[to * n + k] = (right.data[to * n + k] as number) / lengthRight;
      left.data[to * n + k] = (left.data[to * n + k] as number) / lengthLeft;
    }
  }
  return [left, right];
}

/**
 * target = basis[:, live] · inner, by the rows above and below, where only some columns have entries. Rows [upperRows,
 * lowerFrom) belong to column 0 alone.
 */
function multiplyHalves(
  basis: Columns,
  live: readonly number[],
  half: Uint8Array,
  inner: Columns,
  target: Columns,
  upperRows: number,
  lowerFrom: number,
  middle: boolean,
): void {
  const parts = [
    { bit: UPPER, from: 0, rows: upperRows },
    { bit: LOWER, from: lowerFrom, rows: basis.rows - lowerFrom },
  ];
  for (const { bit, from, rows } of parts) {
    const used = live.flatMap((k, at) => ((half[k] as number) & bit && !(middle && at === 0) ? [{ k, at }] : []));
    const gathered = columns(rows, used.length);
    const factor = columns(used.length, inner.cols);
    for (const [to, { k, at }] of used.entries()) {
      const start = k * basis.rows + from;
      gathered.data.set(basis.data.subarray(start, start + rows), to * rows);
      for (let j = 0; j < inner.cols; j += 1)
        factor.data[j * used.length + to] = inner.data[j * inner.rows + at] as number;
    }
    addProduct(1, view(gathered), view(factor), view(target, from, 0, rows));
  }
  if (!middle) return;
  for (let j = 0; j < inner.cols; j += 1)
    target.data[j * target.rows + upperRows] = inner.data[j * inner.rows] as number;
}
