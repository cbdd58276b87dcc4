// WGSL of a product c = a·bᵀ (NT) or a·b (NN) in which every invocation keeps a tile of c in registers. The tile is written
// out, since not every compiler keeps an array in registers. All tiles sum k upwards with one fma a step, so that which one
// is chosen changes speed and no byte. The text is completed by params.wgsl, by a text that reads b, and by an epilogue.
import type { Epilogue } from './epilogue.ts';

export interface TileShape {
  /**
   * What differs between the invocations of a workgroup: its columns of c, or its rows. The other operand is the same for
   * all of them.
   */
  readonly lanes: 'columns' | 'rows';
  /** Rows of the tile; a multiple of four where `quad` shares them. */
  readonly rows: number;
  /** Columns of the tile, in vectors of four. */
  readonly vectors: number;
  /** Invocations of a workgroup; a multiple of four. */
  readonly workgroup: number;
  /**
   * The shared operand is read once by four neighbouring invocations together and handed round (quadBroadcast), for
   * adapters that pay per load. Needs `subgroups`, of whatever size.
   */
  readonly quad: boolean;
  /**
   * A whole tile that only replaces what is there is stored without a loop. That costs time to compile and pays where sums
   * are so short that storing them counts.
   */
  readonly writtenOut?: boolean;
}

export type Form = 'nt' | 'nn';

/** What of a product decides its entry point. */
export interface TileProduct {
  readonly form: Form;
  readonly branch: boolean;
  readonly epilogue: Epilogue;
}

/** Rows and columns of c that one workgroup computes. */
export const tileSpan = ({ lanes, rows, vectors, workgroup }: TileShape): [rows: number, columns: number] =>
  lanes === 'columns' ? [rows, 4 * vectors * workgroup] : [rows * workgroup, 4 * vectors];

export const times = <T>(count: number, write: (i: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => write(i));
export const each = (count: number, write: (i: number) => string): string => times(count, write).join(' ');

/** Where operands are read from: rows of a or branch_x, vectors of four of b or branch_w. */
export interface Source {
  /** Prefix of its names in the shader. */
  readonly name: string;
  readonly row: (index: string) => string;
  readonly vector: (index: string) => string;
  /** Vectors of four from one row to the next, of either side. */
  readonly rowStride: string;
  readonly rowColumn: string;
  readonly vectorStride: string;
}

export const BASE: Source = {
  name: 'base',
  row: (index) => `a[${index}]`,
  vector: (index) => `weight4(${index})`,
  rowStride: 'params.aStride / 4u',
  rowColumn: ' + params.aColumn / 4u',
  vectorStride: 'params.bStride / 4u',
};

export const branchOf = (form: Form): Source => ({
  name: 'branch',
  row: (index) => `params.branchScale * branch_x[${index}]`,
  vector: (index) => `branch_w[${index}]`,
  rowStride: 'params.rank / 4u',
  rowColumn: '',
  vectorStride: form === 'nt' ? 'params.rank / 4u' : 'params.columns / 4u',
});

/** What an invocation reads in one step: its rows, and its vectors of b. */
function reading(form: Form, { lanes, rows, vectors, quad }: TileShape) {
  const sharesRows = quad && lanes === 'columns';
  const sharesVectors = quad && lanes === 'rows';
  const rowIndex = (i: number): string => {
    if (sharesRows) return `row + ${4 * i}u + quad`;
    return lanes === 'rows' ? `row + ${i}u * WORKGROUP` : `row + ${i}u`;
  };
  const loadedRows = sharesRows ? rows / 4 : rows;
  const quarters = sharesVectors ? ['quad'] : ['0u', '1u', '2u', '3u'];
  const vectorNames = times(vectors, (v) => quarters.map((_, i) => `y${v}_${i}`)).flat();
  const rowNames = times(loadedRows, (i) => `x${i}`);
  /** Where everything begins; what is beyond the edge is read as the last one, and not stored. */
  const begin = ({ name, rowStride, rowColumn, vectorStride }: Source): string => {
    const rowStarts = times(
      loadedRows,
      (i) => `let ${name}_x${i} = min(${rowIndex(i)}, lastRow) * (${rowStride})${rowColumn};`,
    );
    const vectorStarts = times(vectors, (v) =>
      quarters.map((q, i) => {
        const start =
          form === 'nt'
            ? `min(column + ${4 * v}u + ${q}, params.columns - 1u) * ${name}_stride`
            : `${q} * ${name}_stride + min(column / 4u + ${v}u, params.columns / 4u - 1u)`;
        return `let ${name}_y${v}_${i} = ${start};`;
      }),
    ).flat();
    return [`let ${name}_stride = ${vectorStride};`, ...rowStarts, ...vectorStarts].join(' ');
  };
  const step = (k: string, { name }: Source) => (form === 'nt' ? k : `4u * ${k} * ${name}_stride`);
  const load = (source: Source, k: string): string =>
    [
      ...vectorNames.map((each) => `let ${each} = ${source.vector(`${source.name}_${each} + ${step(k, source)}`)};`),
      ...rowNames.map((each) => `let ${each} = ${source.row(`${source.name}_${each} + ${k}`)};`),
    ].join(' ');
  return { sharesRows, sharesVectors, begin, load };
}

/** Adds four steps of k to the sums. */
function addStep(form: Form, { rows, vectors }: TileShape, sharesRows: boolean, sharesVectors: boolean): string {
  // What four invocations read together is handed round.
  const vector = (v: number, q: number) => (sharesVectors ? `quadBroadcast(y${v}_0, ${q}u)` : `y${v}_${q}`);
  const parts = times(vectors, (v) => {
    if (form === 'nn') return times(4, (q) => `let p${v}_${q} = ${vector(v, q)};`).join(' ');
    // In NT a vector runs along k: four of them are turned into four steps of k.
    const turned = times(4, (q) => `let p${v}_${q} = vec4f(${times(4, (j) => `t${v}_${j}.${'xyzw'[q]}`).join(', ')});`);
    return [...times(4, (q) => `let t${v}_${q} = ${vector(v, q)};`), ...turned].join(' ');
  });
  const sums = times(rows, (i) => {
    const x = sharesRows ? `quadBroadcast(x${Math.floor(i / 4)}, ${i % 4}u)` : `x${i}`;
    // One expression, since SwiftShader pays more for assigning to a sum than for four multiply-adds.
    const steps = each(vectors, (v) => {
      const sum = `s${i}_${v}`;
      const added = ['x', 'y', 'z', 'w'].reduce(
        (before, part, q) => `fma(vec4f(v.${part}), p${v}_${q}, ${before})`,
        sum,
      );
      return `${sum} = ${added};`;
    });
    return `{ let v = ${x}; ${steps} }`;
  });
  return [...parts, ...sums].map((line) => `    ${line}`).join('\n');
}

/** The loop over k of one source. */
function sumOver(form: Form, shape: TileShape, source: Source, inner: string): string {
  const { sharesRows, sharesVectors, begin, load } = reading(form, shape);
  return `  {
    ${begin(source)}
    for (var k = 0u; k < ${inner} / 4u; k++) {
      ${load(source, 'k')}
${addStep(form, shape, sharesRows, sharesVectors)}
    }
  }`;
}

/** Stores the whole tile, where the product lets it be no more than that. */
function storeTile({ rows, vectors }: TileShape, { residual }: Epilogue): string {
  const store = (i: number, v: number) => `c[at + ${i}u * stride + ${v}u] = params.alpha * s${i}_${v};`;
  return `
  if (${residual ? 'params.residual == 0u && ' : ''}params.accumulate == 0u && row + ${rows}u <= params.rows && column + ${4 * vectors}u <= params.columns) {
    let stride = params.cStride / 4u;
    let at = row * stride + (params.cColumn + column) / 4u;
    ${times(rows, (i) => each(vectors, (v) => store(i, v))).join('\n    ')}
    return;
  }`;
}

/** The whole entry point `main`; a branch adds branchScale · branch_x · branch_w to the sums (transposed in NT). */
export function registerTile(shape: TileShape, { form, branch, epilogue }: TileProduct): string {
  const { lanes, rows, vectors, workgroup } = shape;
  const [spanRows, spanColumns] = tileSpan(shape);
  const own = lanes === 'columns' ? `let row = firstRow; let column = firstColumn + local * ${4 * vectors}u;` : '';
  const ownRows = lanes === 'rows' ? 'let row = firstRow + local; let column = firstColumn;' : '';
  const sums = times(rows, (i) => times(vectors, (v) => `s${i}_${v}`).join(', ')).join(',\n    ');
  const step = lanes === 'rows' ? ' * WORKGROUP' : '';
  return `
@group(0) @binding(1) var<storage, read_write> a: array<vec4f>;
${branch ? '@group(0) @binding(5) var<storage, read_write> branch_x: array<vec4f>;\n@group(0) @binding(6) var<storage, read_write> branch_w: array<vec4f>;' : ''}
const WORKGROUP = ${workgroup}u;

@compute @workgroup_size(${workgroup})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let group = params.firstGroup + wg.y * groups.x + wg.x;
  let across = (params.columns + ${spanColumns - 1}u) / ${spanColumns}u;
  let firstRow = group / across * ${spanRows}u;
  let firstColumn = group % across * ${spanColumns}u;
  if (firstRow >= params.rows) {
    return;
  }
  ${own}${ownRows}${shape.quad ? '\n  let quad = local % 4u;' : ''}
  let lastRow = params.rows - 1u;
  ${times(rows, (i) => each(vectors, (v) => `var s${i}_${v} = vec4f();`)).join('\n  ')}
${sumOver(form, shape, BASE, 'params.inner')}
${branch ? sumOver(form, shape, branchOf(form), 'params.rank') : ''}
${shape.writtenOut && lanes === 'columns' && epilogue.vectors && !epilogue.bias ? storeTile(shape, epilogue) : ''}
  // A loop, since every copy of \`store\` costs time to compile, to an end that no compiler knows and writes it out for.
  var sums = array<vec4f, ${rows * vectors}>(
    ${sums});
  let left = params.rows - min(row, params.rows);
  let count = min(${rows}u, ${lanes === 'rows' ? '(left + WORKGROUP - 1u) / WORKGROUP' : 'left'});
  for (var i = 0u; i < count; i++) {
${times(vectors, (v) => `    store(row + i${step}, column + ${4 * v}u, sums[${vectors}u * i + ${v}u]);`).join('\n')}
  }
}
`;
}
