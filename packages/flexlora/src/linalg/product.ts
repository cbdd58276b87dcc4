// C += α · A · B of matrices and parts of matrices in float64: the one product that everything larger here is made of.
// Blocks are packed into panels of four rows or columns (Goto and van de Geijn, "Anatomy of high-performance matrix
// multiplication", 2008), so that any strides, transposed ones too, cost only the packing.
import type { Columns } from './columns.ts';
import { BLOCK, TILE, type TileEngine, tileEngine } from './tiles.ts';

/** A matrix, or part of one: element (i, j) is data[from + i · down + j · across]. */
export interface View {
  readonly data: Float64Array;
  readonly from: number;
  readonly rows: number;
  readonly cols: number;
  /** Steps from one row to the next, and from one column to the next. */
  readonly down: number;
  readonly across: number;
}

/** Rows [top, top + rows) and columns [left, left + cols) of a matrix; all of it unless said. */
export const view = (
  matrix: Columns,
  top = 0,
  left = 0,
  rows = matrix.rows - top,
  cols = matrix.cols - left,
): View => ({ data: matrix.data, from: left * matrix.rows + top, rows, cols, down: 1, across: matrix.rows });

export const transposedView = ({ data, from, rows, cols, down, across }: View): View => ({
  data,
  from,
  rows: cols,
  cols: rows,
  down: across,
  across: down,
});

/** Rows [first, first + count) of `source`, columns [k, k + depth), as panels [panel][k][4 rows]; missing rows are zero. */
function pack(
  to: Float64Array,
  { data, from, down, across }: View,
  first: number,
  count: number,
  k: number,
  depth: number,
): void {
  let at = 0;
  for (let row = 0; row < count; row += TILE) {
    const start = from + (first + row) * down + k * across;
    const lanes = Math.min(TILE, count - row);
    if (lanes === TILE) {
      for (let step = 0, i = start; step < depth; step += 1, i += across, at += TILE) {
        to[at] = data[i] as number;
        to[at + 1] = data[i + down] as number;
        to[at + 2] = data[i + 2 * down] as number;
        to[at + 3] = data[i + 3 * down] as number;
      }
    } else {
      for (let step = 0, i = start; step < depth; step += 1, i += across, at += TILE)
        for (let lane = 0; lane < TILE; lane += 1) to[at + lane] = lane < lanes ? (data[i + lane * down] as number) : 0;
    }
  }
}

/** c[top.., left..] += alpha · the engine's tiles. */
function unpack(
  { c }: TileEngine,
  alpha: number,
  { data, from, down, across }: View,
  [top, rows]: readonly [number, number],
  [left, cols]: readonly [number, number],
): void {
  let at = 0;
  for (let col = 0; col < cols; col += TILE) {
    for (let row = 0; row < rows; row += TILE, at += TILE * TILE) {
      const lanes = Math.min(TILE, rows - row);
      const width = Math.min(TILE, cols - col);
      for (let j = 0; j < width; j += 1) {
        const tile = at + j * TILE;
        let to = from + (top + row) * down + (left + col + j) * across;
        if (down === 1 && lanes === TILE) {
          data[to] = (data[to] as number) + alpha * (c[tile] as number);
          data[to + 1] = (data[to + 1] as number) + alpha * (c[tile + 1] as number);
          data[to + 2] = (data[to + 2] as number) + alpha * (c[tile + 2] as number);
          data[to + 3] = (data[to + 3] as number) + alpha * (c[tile + 3] as number);
          continue;
        }
        for (let i = 0; i < lanes; i += 1, to += down)
          data[to] = (data[to] as number) + alpha * (c[tile + i] as number);
      }
    }
  }
}

/**
 * c += alpha · a · b, [m, k] · [k, n]. `c` must not overlap `a` or `b`. Blocks of k are added in order whatever the engine,
 * so that equal input gives equal bytes. Throws RangeError when the sizes do not fit.
 */
export function addProduct(alpha: number, a: View, b: View, c: View): void {
  if (a.cols !== b.rows || a.rows !== c.rows || b.cols !== c.cols) {
    throw new RangeError(
      `A product of [${a.rows}, ${a.cols}] and [${b.rows}, ${b.cols}] is not [${c.rows}, ${c.cols}].`,
    );
  }
  const engine = tileEngine();
  const columnsOfB = transposedView(b);
  for (let left = 0; left < c.cols; left += BLOCK.columns) {
    const cols = Math.min(BLOCK.columns, c.cols - left);
    for (let k = 0; k < a.cols; k += BLOCK.depth) {
      const depth = Math.min(BLOCK.depth, a.cols - k);
      pack(engine.b, columnsOfB, left, cols, k, depth);
      for (let top = 0; top < c.rows; top += BLOCK.rows) {
        const rows = Math.min(BLOCK.rows, c.rows - top);
        pack(engine.a, a, top, rows, k, depth);
        engine.run(Math.ceil(rows / TILE), Math.ceil(cols / TILE), depth);
        unpack(engine, alpha, c, [top, rows], [left, cols]);
      }
    }
  }
}
