// Attention by tiles of 32 × 32 (Dao et al. 2022), for every device. A workgroup of 8 × 8 invocations keeps a tile of
// rows: forward and dq keep queries and meet keys, dk and dv keep keys and meet queries. Of the scores each invocation has
// four rows and four columns; weights of the sums go through workgroup memory, and of the sums it has the same four rows
// and every eighth Part. The text grows little with the head, whose size only decides how many Parts that are.
import paramsCode from './params.wgsl?raw';
import { unroll } from './unroll.ts';

/** Rows of a tile. */
export const TILE = 32;

const CONSTANTS = `
const GROUPS = 8u;
const TILE = ${TILE}u;
// Parts of both sides that stand in workgroup memory at a time, and how far rows lie apart there: one more, so that
// neighbours read from different banks.
const CHUNK = 8u;
const PITCH = CHUNK + 1u;

var<workgroup> own: array<Part, TILE * PITCH>;
var<workgroup> other: array<Part, TILE * PITCH>;
// Weights of a column of the tile for the four rows of an invocation.
var<workgroup> weights: array<vec4f, TILE * GROUPS>;
// Of every row, one number from each group.
var<workgroup> gathered: array<f32, TILE * GROUPS>;
var<workgroup> hulls: array<vec2u, GROUPS>;
var<workgroup> bounds: vec2u;
`;

/**
 * The head of an entry point whose workgroup keeps rows of `count` rows with `heads` heads each. `from` is the first row
 * that one of them sees, in terms of its `span` and of how many it sees.
 */
const begin = (name: string, count: string, heads: string, from: string): string => `
@compute @workgroup_size(64)
fn ${name}(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let group = params.firstGroup + wg.y * groups.x + wg.x;
  let head = group % ${heads};
  let tile = group / ${heads} * TILE;
  if (tile >= ${count}) {
    return;
  }
  let column_group = local % GROUPS;
  let row_group = local / GROUPS;
  // Rows beyond the end repeat the last, and are not written.
  var rows: array<u32, FOUR>;
  var from_row: array<u32, FOUR>;
  var row_count: array<u32, FOUR>;
  var hull = vec2u(0xffffffffu, 0u);
  for (var r = 0u; r < FOUR; r++) {
    rows[r] = min(tile + r * GROUPS + row_group, ${count} - 1u);
    let span = spans[rows[r]];
    row_count[r] = visible(span);
    from_row[r] = ${from};
    if (row_count[r] > 0u) {
      hull = vec2u(min(hull.x, from_row[r]), max(hull.y, from_row[r] + row_count[r]));
    }
  }
  if (column_group == 0u) {
    hulls[row_group] = hull;
  }
  workgroupBarrier();
  if (local == 0u) {
    for (var i = 1u; i < GROUPS; i += 1u) {
      hull = vec2u(min(hull.x, hulls[i].x), max(hull.y, hulls[i].y));
    }
    bounds = hull;
  }
  let all = workgroupUniformLoad(&bounds);
  let begin = all.x;
  let end = all.y;`;

const QUERY = '(row * params.heads + query_head) * params.parts';
const KEY = '(row * params.kvHeads + kv_head) * params.parts';

/** A score's or a slope's tile: rows of one tensor times rows of another. */
const products = (result: string, [ownTensor, ownPlace]: Side, [otherTensor, otherPlace]: Side): string => `
    var ${result} = array<array<Part, FOUR>, FOUR>();
    for (var chunk = 0u; chunk < params.parts; chunk += CHUNK) {
      workgroupBarrier();
      for (var flat = local; flat < TILE * CHUNK; flat += 64u) {
        let d = min(chunk + flat % CHUNK, params.parts - 1u);
        let place = flat / CHUNK * PITCH + flat % CHUNK;
        {
          let row = min(tile + flat / CHUNK, ${ownTensor === 'q' || ownTensor === 'dout' ? 'params.queries' : 'params.keys'} - 1u);
          own[place] = ${ownTensor}[${ownPlace} + d];
        }
        {
          let row = clamp(start + flat / CHUNK, begin, end - 1u);
          other[place] = ${otherTensor}[${otherPlace} + d];
        }
      }
      workgroupBarrier();
      for (var d = 0u; d < min(CHUNK, params.parts - chunk); d += 1u) {
        var column: array<Part, FOUR>;
        for (var c = 0u; c < FOUR; c++) { column[c] = other[(c * GROUPS + column_group) * PITCH + d]; }
        for (var r = 0u; r < FOUR; r++) {
          let part = own[(r * GROUPS + row_group) * PITCH + d];
          for (var c = 0u; c < FOUR; c++) { ${result}[r][c] = fma(part, column[c], ${result}[r][c]); }
        }
      }
    }`;

type Side = readonly [tensor: string, place: string];

/** Puts a tile of numbers where {@link sums} reads its weights. */
const spread = (tile: string): string => `
    for (var c = 0u; c < FOUR; c++) {
      weights[(c * GROUPS + column_group) * GROUPS + row_group] = vec4f(${[0, 1, 2, 3].map((r) => `${tile}[${r}][c]`).join(', ')});
    }
    workgroupBarrier();`;

/** Adds rows of a tensor, weighted, to sums of every row of the tile. */
const sums = (result: string, [tensor, place]: Side): string => `
    // An end that is not known, since loops of a known length are written out, which takes some compilers long.
    for (var n = 0u; n < min(TILE, end - start); n += 1u) {
      let row = max(start + n, begin);
      let place = ${place};
      let weight = weights[n * GROUPS + row_group];
      for (var c = 0u; c < COLUMNS; c++) {
        let part = ${tensor}[place + min(c * GROUPS + column_group, params.parts - 1u)];
        for (var r = 0u; r < FOUR; r++) { ${result}[r][c] = fma(Part(weight[r]), part, ${result}[r][c]); }
      }
    }`;

/** Writes sums of rows of `tensor` that are among its `count` rows. */
const store = (
  count: string,
  place: string,
  results: readonly (readonly [tensor: string, result: string])[],
): string => `
  for (var r = 0u; r < FOUR; r++) {
    let row = rows[r];
    let place = ${place};
    if (tile + r * GROUPS + row_group < ${count}) {
      for (var c = 0u; c < COLUMNS; c++) {
        if (c * GROUPS + column_group < params.parts) {${results
          .map(
            ([tensor, result]) => `
          ${tensor}[place + c * GROUPS + column_group] = ${result}[r][c];`,
          )
          .join('')}
        }
      }
    }
  }
}
`;

const TILES = 'for (var start = begin / TILE * TILE; start < end; start += TILE)';
const SEEN = 'start + c * GROUPS + column_group - from_row[r] < row_count[r]';
const GATHERED = '(r * GROUPS + row_group) * GROUPS';
const KV_HEAD = `
  let query_head = head;
  let kv_head = head / (params.heads / params.kvHeads);`;

const forward = `${begin('forward', 'params.queries', 'params.heads', 'span.y + 1u - row_count[r]')}${KV_HEAD}
  var sum: array<array<Part, COLUMNS>, FOUR>;
  var highest: array<f32, FOUR>;
  var total: array<f32, FOUR>;
  for (var r = 0u; r < FOUR; r++) { highest[r] = LOWEST; }
  ${TILES} {${products('dot', ['q', QUERY], ['k', KEY])}
    var weight: array<array<f32, FOUR>, FOUR>;
    for (var r = 0u; r < FOUR; r++) {
      var next = LOWEST;
      for (var c = 0u; c < FOUR; c++) {
        weight[r][c] = select(LOWEST, part_sum(dot[r][c]) * params.scale, ${SEEN});
        next = max(next, weight[r][c]);
      }
      gathered[${GATHERED} + column_group] = next;
    }
    workgroupBarrier();
    for (var r = 0u; r < FOUR; r++) {
      var next = highest[r];
      for (var i = 0u; i < GROUPS; i += 1u) { next = max(next, gathered[${GATHERED} + i]); }
      let keep = exp(highest[r] - next);
      highest[r] = next;
      total[r] *= keep;
      for (var c = 0u; c < FOUR; c++) {
        weight[r][c] = select(0.0, exp(weight[r][c] - next), ${SEEN});
        total[r] += weight[r][c];
      }
      for (var c = 0u; c < COLUMNS; c++) { sum[r][c] *= keep; }
    }${spread('weight')}${sums('sum', ['v', KEY])}
  }
  workgroupBarrier();
  for (var r = 0u; r < FOUR; r++) { gathered[${GATHERED} + column_group] = total[r]; }
  workgroupBarrier();
  for (var r = 0u; r < FOUR; r++) {
    var all_groups = 0.0;
    for (var i = 0u; i < GROUPS; i += 1u) { all_groups += gathered[${GATHERED} + i]; }
    // A query that sees nothing gets zero.
    let divisor = select(all_groups, 1.0, row_count[r] == 0u);
    for (var c = 0u; c < COLUMNS; c++) { sum[r][c] *= 1.0 / divisor; }
    if (column_group == 0u && tile + r * GROUPS + row_group < params.queries) {
      lse[rows[r] * params.heads + head] = highest[r] + log(divisor);
    }
  }${store('params.queries', QUERY, [['out', 'sum']])}`;

// In the two entry points below `out` is what is written: dq, or dk with dv beside it.
const backwardQuery = `${begin('backward_query', 'params.queries', 'params.heads', 'span.y + 1u - row_count[r]')}${KV_HEAD}
  var stat: array<vec2f, FOUR>;
  for (var r = 0u; r < FOUR; r++) { stat[r] = stats[rows[r] * params.heads + head]; }
  var gradient: array<array<Part, COLUMNS>, FOUR>;
  ${TILES} {${products('dot', ['q', QUERY], ['k', KEY])}${products('slope', ['dout', QUERY], ['v', KEY])}
    var ds: array<array<f32, FOUR>, FOUR>;
    for (var r = 0u; r < FOUR; r++) {
      for (var c = 0u; c < FOUR; c++) {
        let probability = select(0.0, exp(part_sum(dot[r][c]) * params.scale - stat[r].x), ${SEEN});
        ds[r][c] = probability * (part_sum(slope[r][c]) - stat[r].y) * params.scale;
      }
    }${spread('ds')}${sums('gradient', ['k', KEY])}
  }${store('params.queries', QUERY, [['out', 'gradient']])}`;

const backwardKey = `${begin('backward_key', 'params.keys', 'params.kvHeads', 'span.x')}
  let kv_head = head;
  var key_gradient: array<array<Part, COLUMNS>, FOUR>;
  var value_gradient: array<array<Part, COLUMNS>, FOUR>;
  // The heads of queries that share this one.
  let sharing = params.heads / params.kvHeads;
  for (var query_head = head * sharing; query_head < (head + 1u) * sharing; query_head += 1u) {
  ${TILES} {${products('dot', ['k', KEY], ['q', QUERY])}${products('slope', ['v', KEY], ['dout', QUERY])}
    var probability: array<array<f32, FOUR>, FOUR>;
    var ds: array<array<f32, FOUR>, FOUR>;
    for (var c = 0u; c < FOUR; c++) {
      let row = clamp(start + c * GROUPS + column_group, begin, end - 1u);
      let stat = stats[row * params.heads + query_head];
      for (var r = 0u; r < FOUR; r++) {
        probability[r][c] = select(0.0, exp(part_sum(dot[r][c]) * params.scale - stat.x), ${SEEN});
        ds[r][c] = probability[r][c] * (part_sum(slope[r][c]) - stat.y) * params.scale;
      }
    }${spread('probability')}${sums('value_gradient', ['dout', QUERY])}
    workgroupBarrier();${spread('ds')}${sums('key_gradient', ['q', QUERY])}
  }
  }${store('params.keys', KEY, [
    ['out', 'key_gradient'],
    ['dv', 'value_gradient'],
  ])}`;

/** The text of every entry point, for heads of `parts` Parts declared by `partCode`. */
export function tileShaderCode(partCode: string, parts: number): string {
  const limits = { FOUR: 4, COLUMNS: Math.ceil(parts / 8) };
  const constants = Object.entries(limits).map(([name, n]) => `const ${name} = ${n}u;\n`);
  const text = forward + backwardQuery + backwardKey;
  return partCode + constants.join('') + paramsCode + CONSTANTS + unroll(text, limits);
}
