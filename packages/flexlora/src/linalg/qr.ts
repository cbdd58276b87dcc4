// Householder QR, thin, of matrices with more rows than columns or fewer; optionally with column pivoting. Backward stable
// column by column (Higham, "Accuracy and Stability of Numerical Algorithms", §19.3). Q is kept as reflectors, which are
// applied in blocks (Schreiber and Van Loan, "A storage-efficient WY representation", 1989).
import { addScaled, type Columns, columns, dot } from './columns.ts';
import { addProduct, transposedView, view } from './product.ts';

/** Reflectors that are applied at once. */
export const PANEL = 32;
/** Columns that are reduced one by one before the rest of their panel sees them. */
const STRIP = 8;

/** H₀ · H₁ · … of reflectors 1 − betas[k] · x·xᵀ. */
export interface Reflectors {
  /** [rows, size]; column k is the x of reflector k, zero above its first element. */
  readonly vectors: Columns;
  readonly betas: Float64Array;
  /** By block of {@link PANEL}: upper triangular T of 1 − X·T·Xᵀ. */
  readonly blocks: readonly Columns[];
}

export interface Qr {
  /** Rows of the factored matrix. */
  readonly rows: number;
  /** min(rows, cols): the number of reflectors and of columns of Q. */
  readonly size: number;
  readonly q: Reflectors;
  /** R, upper trapezoidal, [size, cols]. */
  readonly r: Columns;
  /** Column j of R belongs to column order[j] of the matrix. */
  readonly order: Int32Array;
}

/** Turns x = data[from .. from + count) into a reflector in place, and returns its β and the first element of H·x. */
export function makeReflector(data: Float64Array, from: number, count: number): { beta: number; head: number } {
  const first = data[from] as number;
  let rest = 0;
  for (let i = 1; i < count; i += 1) rest += (data[from + i] as number) ** 2;
  if (rest === 0) return { beta: 0, head: first };
  const norm = Math.sqrt(first * first + rest);
  const head = first > 0 ? -norm : norm;
  const pivot = first - head;
  data[from] = pivot;
  return { beta: 2 / (pivot * pivot + rest), head };
}

function swapColumns({ rows, data }: Columns, i: number, j: number): void {
  const kept = data.slice(i * rows, (i + 1) * rows);
  data.copyWithin(i * rows, j * rows, (j + 1) * rows);
  data.set(kept, j * rows);
}

/** T of 1 − X·T·Xᵀ for columns [first, first + count) of the vectors, which are zero above row `top`. */
function blockOf(vectors: Columns, betas: Float64Array, first: number, count: number, top: number): Columns {
  const t = columns(count, count);
  const inner = columns(count, count);
  const v = view(vectors, top, first, vectors.rows - top, count);
  addProduct(1, transposedView(v), v, view(inner));
  for (let k = 0; k < count; k += 1) {
    const beta = betas[first + k] as number;
    for (let i = 0; i < k; i += 1) {
      let sum = 0;
      for (let j = i; j < k; j += 1) sum += (t.data[j * count + i] as number) * (inner.data[k * count + j] as number);
      t.data[k * count + i] = -beta * sum;
    }
    t.data[k * count + k] = beta;
  }
  return t;
}

/** The reflectors of vectors that begin `offset` rows below their diagonal, ready to be applied. */
export function reflectorsOf(vectors: Columns, betas: Float64Array, offset = 0): Reflectors {
  const blocks: Columns[] = [];
  for (let first = 0; first < vectors.cols; first += PANEL) {
    const count = Math.min(PANEL, vectors.cols - first);
    blocks.push(blockOf(vectors, betas, first, count, Math.min(vectors.rows, first + offset)));
  }
  return { vectors, betas, blocks };
}

/** X −= V·(T·(Vᵀ·X)), or with Tᵀ, for columns [left, end) of X; V are the vectors from `first` on. */
function applyBlock(
  vectors: Columns,
  first: number,
  t: Columns,
  x: Columns,
  [left, end]: readonly [number, number],
  transposed: boolean,
): void {
  const v = view(vectors, first, first, vectors.rows - first, t.cols);
  const target = view(x, first, left, x.rows - first, end - left);
  const inner = columns(t.cols, target.cols);
  addProduct(1, transposedView(v), target, view(inner));
  const turned = columns(t.cols, target.cols);
  addProduct(1, transposed ? transposedView(view(t)) : view(t), view(inner), view(turned));
  addProduct(-1, v, view(turned), target);
}

/**
 * A · P = Q · R. With `pivot`, the column with the most left of it goes first, so that R's rows fall in size and rank
 * deficiency shows at its end. With `inPlace` the matrix is overwritten. Entries must be finite and their squares must not
 * overflow.
 */
export function qr(
  matrix: Columns,
  { pivot = false, inPlace = false }: { pivot?: boolean; inPlace?: boolean } = {},
): Qr {
  const { rows, cols } = matrix;
  const size = Math.min(rows, cols);
  const work = columns(rows, cols, inPlace ? matrix.data : matrix.data.slice());
  const { data } = work;
  const betas = new Float64Array(size);
  const r = columns(size, cols);
  const order = Int32Array.from({ length: cols }, (_, j) => j);
  const leftOver = new Float64Array(cols);
  const measure = (j: number, from: number): number => dot(data, j * rows + from, data, j * rows + from, rows - from);
  if (pivot) for (let j = 0; j < cols; j += 1) leftOver[j] = measure(j, 0);
  const blocks: Columns[] = [];
  for (let first = 0; first < size; first += PANEL) {
    const end = Math.min(size, first + PANEL);
    for (let k = first; k < end; k += 1) {
      const strip = k - ((k - first) % STRIP);
      const stripEnd = Math.min(end, strip + STRIP);
      // A pivot may come from anywhere, so that all columns must be up to date.
      const reach = pivot ? cols : stripEnd;
      if (pivot) {
        let best = k;
        for (let j = k + 1; j < cols; j += 1) if ((leftOver[j] as number) > (leftOver[best] as number)) best = j;
        if (best !== k) {
          swapColumns(work, k, best);
          swapColumns(r, k, best);
          [order[k], order[best]] = [order[best] as number, order[k] as number];
          leftOver[best] = leftOver[k] as number;
        }
      }
      const from = k * rows + k;
      const count = rows - k;
      const { beta, head } = makeReflector(data, from, count);
      betas[k] = beta;
      r.data.set(data.subarray(k * rows + first, k * rows + k), k * size + first);
      r.data[k * size + k] = head;
      data.fill(0, k * rows, from);
      for (let j = k + 1; j < reach; j += 1) {
        const at = j * rows + k;
        if (beta !== 0) addScaled(-beta * dot(data, from, data, at, count), data, from, data, at, count);
        // Measured anew rather than downdated: downdating cancels just where the pivot matters.
        if (pivot) leftOver[j] = measure(j, k + 1);
      }
      if (!pivot && k + 1 === stripEnd && stripEnd < end) {
        const t = blockOf(work, betas, strip, stripEnd - strip, strip);
        applyBlock(work, strip, t, work, [stripEnd, end], true);
      }
    }
    const t = blockOf(work, betas, first, end - first, first);
    blocks.push(t);
    if (!pivot && end < cols) applyBlock(work, first, t, work, [end, cols], true);
    for (let j = end; j < cols; j += 1) r.data.set(data.subarray(j * rows + first, j * rows + end), j * size + first);
  }
  const vectors = columns(rows, size, data.subarray(0, rows * size));
  return { rows, size, q: { vectors, betas, blocks }, r, order };
}

/** H₀ · H₁ · … · X in place, X of [rows, X.cols]. */
export function applyReflectors({ vectors, blocks }: Reflectors, x: Columns): void {
  for (let block = blocks.length - 1; block >= 0; block -= 1)
    applyBlock(vectors, block * PANEL, blocks[block] as Columns, x, [0, x.cols], false);
}

/** Q · X, [rows, X.cols], for X of [size, cols]. */
export function applyQ({ rows, size, q }: Qr, x: Columns): Columns {
  const result = columns(rows, x.cols);
  for (let j = 0; j < x.cols; j += 1) result.data.set(x.data.subarray(j * x.rows, j * x.rows + size), j * rows);
  applyReflectors(q, result);
  return result;
}
