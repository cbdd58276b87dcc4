// The inner loop of all products, twice: in WebAssembly SIMD, and in plain TypeScript as reference and for engines
// without. Both add the same numbers in the same order, so that results are equal to the byte.
import compile from 'watr/compile';
import code from './tiles.wat?raw';

/** Rows and columns of a tile. */
export const TILE = 4;

/** Where products are computed: room for packed panels and tiles, and the loop over them. */
export interface TileEngine {
  readonly name: 'wasm' | 'plain';
  /** Panels of the left factor: [panel][k][4 rows]. */
  readonly a: Float64Array;
  /** Panels of the right factor: [panel][k][4 columns]. */
  readonly b: Float64Array;
  /** Tiles of the product: [column panel][row panel][4 columns][4 rows]. */
  readonly c: Float64Array;
  /** c = a · b for `m` row panels, `n` column panels and `depth` steps of k. */
  run(m: number, n: number, depth: number): void;
}

/** Sizes of a block of a product, so that a lies in a second-level cache: rows, columns and steps of k at most. */
export const BLOCK = { rows: 128, columns: 512, depth: 256 } as const;
const ELEMENTS = {
  a: BLOCK.rows * BLOCK.depth,
  b: BLOCK.columns * BLOCK.depth,
  c: BLOCK.rows * BLOCK.columns,
};

export function plainTiles(): TileEngine {
  const [a, b, c] = [ELEMENTS.a, ELEMENTS.b, ELEMENTS.c].map((size) => new Float64Array(size)) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  return {
    name: 'plain',
    a,
    b,
    c,
    run(m, n, depth) {
      let to = 0;
      for (let q = 0; q < n; q += 1) {
        for (let p = 0; p < m; p += 1, to += TILE * TILE) tile(a, p * depth * TILE, b, q * depth * TILE, c, to, depth);
      }
    },
  };
}

/** Two columns at a time: more sums than that do not stay in registers. */
function tile(
  a: Float64Array,
  aFrom: number,
  b: Float64Array,
  bFrom: number,
  c: Float64Array,
  to: number,
  depth: number,
): void {
  for (let half = 0; half < 2; half += 1) {
    let s0 = 0;
    let s1 = 0;
    let s2 = 0;
    let s3 = 0;
    let t0 = 0;
    let t1 = 0;
    let t2 = 0;
    let t3 = 0;
    let i = aFrom;
    let j = bFrom + 2 * half;
    for (let k = 0; k < depth; k += 1, i += TILE, j += TILE) {
      const x = b[j] as number;
      const y = b[j + 1] as number;
      const a0 = a[i] as number;
      const a1 = a[i + 1] as number;
      const a2 = a[i + 2] as number;
      const a3 = a[i + 3] as number;
      s0 += a0 * x;
      s1 += a1 * x;
      s2 += a2 * x;
      s3 += a3 * x;
      t0 += a0 * y;
      t1 += a1 * y;
      t2 += a2 * y;
      t3 += a3 * y;
    }
    const at = to + 8 * half;
    c[at] = s0;
    c[at + 1] = s1;
    c[at + 2] = s2;
    c[at + 3] = s3;
    c[at + 4] = t0;
    c[at + 5] = t1;
    c[at + 6] = t2;
    c[at + 7] = t3;
  }
}

/** Null where the engine has no WebAssembly SIMD. */
export function wasmTiles(): TileEngine | null {
  const bytes = Uint8Array.from(compile(code));
  if (typeof WebAssembly !== 'object' || !WebAssembly.validate(bytes)) return null;
  const size = Float64Array.BYTES_PER_ELEMENT;
  const pages = Math.ceil(((ELEMENTS.a + ELEMENTS.b + ELEMENTS.c) * size) / 65536);
  const memory = new WebAssembly.Memory({ initial: Math.max(32, pages) });
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), { host: { memory } });
  const tiles = exports.tiles as (a: number, b: number, c: number, m: number, n: number, depth: number) => void;
  const a = new Float64Array(memory.buffer, 0, ELEMENTS.a);
  const b = new Float64Array(memory.buffer, a.byteLength, ELEMENTS.b);
  const c = new Float64Array(memory.buffer, b.byteOffset + b.byteLength, ELEMENTS.c);
  return {
    name: 'wasm',
    a,
    b,
    c,
    run: (m, n, depth) => tiles(a.byteOffset, b.byteOffset, c.byteOffset, m, n, depth),
  };
}

let engine: TileEngine | null = null;

/** The engine of this process: WebAssembly where there is SIMD. */
export function tileEngine(): TileEngine {
  engine ??= wasmTiles() ?? plainTiles();
  return engine;
}

/** For tests and benches: all further products on this engine; null chooses anew. */
export function useTileEngine(wanted: TileEngine | null): void {
  engine = wanted;
}
