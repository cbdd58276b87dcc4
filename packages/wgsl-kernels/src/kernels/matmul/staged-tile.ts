// WGSL of a product for GPUs: 8×8 invocations stage 16 steps of k of both operands in workgroup memory, decoding b on the way,
// and each keeps a square of c in registers. Sums k upwards with one fma a step, as every other variant of a product does.
import { BASE, branchOf, each, type Form, type Source, times } from './register-tile.ts';

/** Invocations along each side of a workgroup's tile. */
const SIDE = 8;
/** Steps of k staged at once. */
const DEPTH = 16;

/** Rows and columns of c of a workgroup whose invocations each keep `square`×`square` of it. */
export const stagedSpan = (square: number): number => SIDE * square;

/** Each invocation stages four rows of one side by four steps of k: as many blocks as a side of the tile is wide. */
function stage(form: Form, square: number, source: Source, inner: string): string {
  const { name } = source;
  const rowsOfA = `
        let begin = firstRow + 4u * block;
        ${each(4, (i) => `let r${i} = ${source.row(`min(begin + ${i}u, lastRow) * (${source.rowStride})${source.rowColumn} + at`)};`)}`;
  const rowsOfB = `
        let begin = firstColumn + 4u * block;
        ${each(4, (i) => `let r${i} = ${source.vector(`min(begin + ${i}u, params.columns - 1u) * ${name}_stride + at`)};`)}`;
  const turned = (to: string): string =>
    each(
      4,
      (q) =>
        `${to}[(4u * step + ${q}u) * WIDTH + block] = vec4f(r0.${'xyzw'[q]}, r1.${'xyzw'[q]}, r2.${'xyzw'[q]}, r3.${'xyzw'[q]});`,
    );
  const loadA = `{${rowsOfA}\n        ${turned('stage_a')} }`;
  const vectors = each(
    4,
    (q) =>
      `stage_b[(4u * step + ${q}u) * WIDTH + block] = ${source.vector(`(4u * at + ${q}u) * ${name}_stride + min(firstColumn / 4u + block, params.columns / 4u - 1u)`)};`,
  );
  const loadB = form === 'nt' ? `{${rowsOfB}\n        ${turned('stage_b')} }` : `{ ${vectors} }`;
  const clear = (to: string) => each(4, (q) => `${to}[(4u * step + ${q}u) * WIDTH + block] = vec4f();`);
  // A square of 8 gives every invocation a block of either side; a square of 4 gives half of them one side each.
  const sides =
    square === 8
      ? `let block = local % WIDTH; let step = local / WIDTH; let at = k + step;
      if (at < steps) { ${loadA}\n        ${loadB} } else { ${clear('stage_a')} ${clear('stage_b')} }`
      : `let block = local % WIDTH; let step = local / WIDTH % 4u; let at = k + step;
      if (local < 4u * WIDTH) {
        if (at < steps) ${loadA} else { ${clear('stage_a')} }
      } else {
        if (at < steps) ${loadB} else { ${clear('stage_b')} }
      }`;
  const groups = square / 4;
  const sums = times(4 * groups, (i) =>
    each(groups, (j) => `s${i}_${j} = fma(vec4f(a${Math.floor(i / 4)}.${'xyzw'[i % 4]}), b${j}, s${i}_${j});`),
  ).join('\n        ');
  return `  {
    let ${name}_stride = ${source.vectorStride};
    let steps = ${inner} / 4u;
    for (var k = 0u; k < steps; k += ${DEPTH / 4}u) {
      ${sides}
      workgroupBarrier();
      for (var n = 0u; n < ${DEPTH}u; n++) {
        ${each(groups, (i) => `let a${i} = stage_a[n * WIDTH + down + ${SIDE * i}u];`)}
        ${each(groups, (j) => `let b${j} = stage_b[n * WIDTH + across + ${SIDE * j}u];`)}
        ${sums}
      }
      workgroupBarrier();
    }
  }`;
}

/** The whole entry point `main`; `square` is 4 or 8. */
export function stagedTile(form: Form, square: 4 | 8, withBranch: boolean): string {
  const span = stagedSpan(square);
  const groups = square / 4;
  const names = times(4 * groups, (i) => times(groups, (j) => `s${i}_${j}`));
  return `
@group(0) @binding(1) var<storage, read_write> a: array<vec4f>;
${withBranch ? '@group(0) @binding(5) var<storage, read_write> branch_x: array<vec4f>;\n@group(0) @binding(6) var<storage, read_write> branch_w: array<vec4f>;' : ''}
// Vectors of four along a side of the tile.
const WIDTH = ${span / 4}u;
var<workgroup> stage_a: array<vec4f, ${(DEPTH * span) / 4}>;
var<workgroup> stage_b: array<vec4f, ${(DEPTH * span) / 4}>;

@compute @workgroup_size(${SIDE * SIDE})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let group = params.firstGroup + wg.y * groups.x + wg.x;
  let tiles = (params.columns + ${span - 1}u) / ${span}u;
  let firstRow = group / tiles * ${span}u;
  let firstColumn = group % tiles * ${span}u;
  if (firstRow >= params.rows) {
    return;
  }
  let lastRow = params.rows - 1u;
  let down = local / ${SIDE}u;
  let across = local % ${SIDE}u;
  ${names.map((row) => row.map((name) => `var ${name} = vec4f();`).join(' ')).join('\n  ')}
${stage(form, square, BASE, 'params.inner')}
${withBranch ? stage(form, square, branchOf(form), 'params.rank') : ''}
  var sums = array<vec4f, ${4 * groups * groups}>(${names.flat().join(', ')});
  for (var i = 0u; i < ${4 * groups}u; i++) {
    let row = firstRow + 4u * (down + ${SIDE}u * (i / 4u)) + i % 4u;
    if (row < params.rows) {
${times(groups, (j) => `      store(row, firstColumn + 4u * (across + ${SIDE * j}u), sums[${groups}u * i + ${j}u]);`).join('\n')}
    }
  }
}
`;
}
