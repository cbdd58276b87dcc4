// Attention in which an invocation keeps whole rows in registers and meets the other side block by block (Dao et al. 2022):
// forward and dq keep queries and meet keys, dk and dv keep keys and meet queries. Four neighbours read a block together and
// hand it round, for adapters that pay more for a load than for the arithmetic on it. Needs `subgroups`, of whatever size.
// Blocks begin at multiples of their length, and rows add them up in order, so that a row's result does not depend on which
// rows stand beside it.
import paramsCode from './params.wgsl?raw';
import { unroll } from './unroll.ts';

export interface QuadShape {
  /** Rows an invocation keeps. */
  readonly rows: number;
  /** Rows of a block. */
  readonly block: number;
}

const WORKGROUP = 32;

/** Rows that one workgroup keeps. */
export const quadSpan = ({ rows }: QuadShape): number => WORKGROUP * rows;

/** Larger heads would take compilers long. */
const MAX_PARTS = 64;

/** What to keep for heads of so many Parts: as much as compiles in a second or two. Null where that is nothing. */
export function quadShape(parts: number): QuadShape | null {
  if (parts <= 4) return { rows: 4, block: 4 };
  if (parts <= 16) return { rows: 2, block: 2 };
  if (parts <= 32) return { rows: 2, block: 1 };
  return parts <= MAX_PARTS ? { rows: 1, block: 1 } : null;
}

interface Rows {
  /** How many rows there are, and heads of each. */
  readonly count: string;
  readonly heads: string;
  /** The first row of the other side that one sees, in terms of its `span` and of `row_count[r]`. */
  readonly from: string;
}

const QUERIES: Rows = { count: 'params.queries', heads: 'params.heads', from: 'span.y + 1u - row_count[r]' };
const KEYS: Rows = { count: 'params.keys', heads: 'params.kvHeads', from: 'span.x' };

/**
 * The head of an entry point whose invocations keep `rows`. The loops over blocks run from `begin` to `end`, what any row of
 * the subgroup sees: the same for all of it, which compilers cannot prove.
 */
const beginning = (name: string, { count, heads, from }: Rows): string => `
@compute @workgroup_size(WORKGROUP)
fn ${name}(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let group = params.firstGroup + wg.y * groups.x + wg.x;
  let head = group % ${heads};
  let tile = group / ${heads} * (WORKGROUP * ROWS);
  if (tile >= ${count}) {
    return;
  }
  let first_row = tile + local * ROWS;
  // Where each row begins, in Parts. Rows beyond the end repeat the last, and are not written.
  var places: array<u32, ROWS>;
  var from_row: array<u32, ROWS>;
  var row_count: array<u32, ROWS>;
  var hull = vec2u(0xffffffffu, 0u);
  for (var r = 0u; r < ROWS; r++) {
    let row = min(first_row + r, ${count} - 1u);
    places[r] = (row * ${heads} + head) * PARTS;
    let span = spans[row];
    row_count[r] = visible(span);
    from_row[r] = ${from};
    if (row_count[r] > 0u) {
      hull = vec2u(min(hull.x, from_row[r]), max(hull.y, from_row[r] + row_count[r]));
    }
  }
  let begin = subgroupMin(hull.x);
  let end = subgroupMax(hull.y);`;

const BLOCKS = 'for (var start = begin / BLOCK * BLOCK; start < end; start += BLOCK)';
const SEEN = 'start + j - from_row[r] < row_count[r]';

/**
 * Reads whole rows into arrays, one Part after the other pushed in from behind: compilers take long for code that reads, and
 * an index of run time would move the arrays from registers to memory. `value` is the Part at `place`.
 */
const load = (arrays: readonly (readonly [array: string, value: string])[]): string => `
  ${arrays.map(([array]) => `var ${array}: array<array<Part, PARTS>, ROWS>;`).join('\n  ')}
  for (var e = 0u; e < params.parts; e += 1u) {
    for (var r = 0u; r < ROWS; r++) {
      let place = places[r] + e;${arrays
        .map(
          ([array, value]) => `
      for (var d = 0u; d < LAST; d++) { ${array}[r][d] = ${array}[r][d + 1u]; }
      ${array}[r][LAST] = ${value};`,
        )
        .join('')}
    }
  }`;

/** Writes arrays to the rows of tensors, one Part after the other pushed out at the front. */
const store = ({ count }: Rows, arrays: readonly (readonly [tensor: string, array: string])[]): string => `
  for (var e = 0u; e < params.parts; e += 1u) {
    for (var r = 0u; r < ROWS; r++) {
      if (first_row + r < ${count}) {${arrays.map(([tensor, array]) => ` ${tensor}[places[r] + e] = ${array}[r][0];`).join('')} }${arrays
        .map(
          ([, array]) => `
      for (var d = 0u; d < LAST; d++) { ${array}[r][d] = ${array}[r][d + 1u]; }`,
        )
        .join('')}
    }
  }
}
`;

/** Reads the block at `start`, a share in each of four neighbours. `place` is where the head of `row` begins, in Parts. */
const fetch = (block: string, tensor: string, place: string): string => `
    var ${block}: array<Part, READS>;
    for (var i = 0u; i < READS; i++) {
      let flat = min(i * 4u + lane % 4u, BLOCK * PARTS - 1u);
      let row = clamp(start + flat / PARTS, begin, end - 1u);
      ${block}[i] = ${tensor}[${place} + flat % PARTS];
    }`;

/** Part d of row j of a block. */
const part = (block: string): string => `quadBroadcast(${block}[(j * PARTS + d) / 4u], (j * PARTS + d) % 4u)`;

/** Products of all rows with the block's, part by part: part_sum makes them dot products. */
const products = (result: string, rows: string, block: string): string => `
    var ${result} = array<array<Part, BLOCK>, ROWS>();
    for (var j = 0u; j < BLOCK; j++) {
      for (var d = 0u; d < PARTS; d++) {
        let part = ${part(block)};
        for (var r = 0u; r < ROWS; r++) { ${result}[r][j] = fma(${rows}[r][d], part, ${result}[r][j]); }
      }
    }`;

/** Adds the block's rows, weighted, to sums for all rows. */
const sums = (result: string, weights: string, block: string): string => `
    for (var j = 0u; j < BLOCK; j++) {
      for (var d = 0u; d < PARTS; d++) {
        let part = ${part(block)};
        for (var r = 0u; r < ROWS; r++) { ${result}[r][d] = fma(Part(${weights}[r][j]), part, ${result}[r][d]); }
      }
    }`;

const KV_HEAD = `
  let kv_head = head / (params.heads / params.kvHeads);`;
const KEY_PLACE = '(row * params.kvHeads + kv_head) * PARTS';
const QUERY_PLACE = '(row * params.heads + query_head) * PARTS';

const forward = `${beginning('forward', QUERIES)}${KV_HEAD}${load([['query', 'params.scale * q[place]']])}
  var sum: array<array<Part, PARTS>, ROWS>;
  var highest: array<f32, ROWS>;
  var total: array<f32, ROWS>;
  for (var r = 0u; r < ROWS; r++) { highest[r] = LOWEST; }
  ${BLOCKS} {${fetch('key', 'k', KEY_PLACE)}${fetch('value', 'v', KEY_PLACE)}${products('dot', 'query', 'key')}
    var weight: array<array<f32, BLOCK>, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
      var next = highest[r];
      for (var j = 0u; j < BLOCK; j++) {
        weight[r][j] = select(LOWEST, part_sum(dot[r][j]), ${SEEN});
        next = max(next, weight[r][j]);
      }
      let keep = exp(highest[r] - next);
      highest[r] = next;
      total[r] *= keep;
      for (var j = 0u; j < BLOCK; j++) {
        weight[r][j] = select(0.0, exp(weight[r][j] - next), ${SEEN});
        total[r] += weight[r][j];
      }
      for (var d = 0u; d < PARTS; d++) { sum[r][d] *= keep; }
    }${sums('sum', 'weight', 'value')}
  }
  for (var r = 0u; r < ROWS; r++) {
    // A query that sees nothing gets zero.
    let divisor = select(total[r], 1.0, row_count[r] == 0u);
    for (var d = 0u; d < PARTS; d++) { sum[r][d] *= 1.0 / divisor; }
    if (first_row + r < params.queries) {
      lse[places[r] / PARTS] = highest[r] + log(divisor);
    }
  }${store(QUERIES, [['out', 'sum']])}`;

// In the two entry points below `out` is what is written: dq, or dk with dv beside it.
const backwardQuery = `${beginning('backward_query', QUERIES)}${KV_HEAD}${load([
  ['query', 'params.scale * q[place]'],
  ['incoming', 'dout[place]'],
])}
  var stat: array<vec2f, ROWS>;
  for (var r = 0u; r < ROWS; r++) { stat[r] = stats[places[r] / PARTS]; }
  var gradient: array<array<Part, PARTS>, ROWS>;
  ${BLOCKS} {${fetch('key', 'k', KEY_PLACE)}${fetch('value', 'v', KEY_PLACE)}${products('dot', 'query', 'key')}${products('slope', 'incoming', 'value')}
    var ds: array<array<f32, BLOCK>, ROWS>;
    for (var j = 0u; j < BLOCK; j++) {
      for (var r = 0u; r < ROWS; r++) {
        let probability = select(0.0, exp(part_sum(dot[r][j]) - stat[r].x), ${SEEN});
        ds[r][j] = probability * (part_sum(slope[r][j]) - stat[r].y) * params.scale;
      }
    }${sums('gradient', 'ds', 'key')}
  }${store(QUERIES, [['out', 'gradient']])}`;

const backwardKey = `${beginning('backward_key', KEYS)}${load([
  ['key', 'params.scale * k[place]'],
  ['value', 'v[place]'],
])}
  var key_gradient: array<array<Part, PARTS>, ROWS>;
  var value_gradient: array<array<Part, PARTS>, ROWS>;
  // The heads of queries that share this one.
  let sharing = params.heads / params.kvHeads;
  for (var query_head = head * sharing; query_head < (head + 1u) * sharing; query_head += 1u) {
  ${BLOCKS} {${fetch('query', 'q', QUERY_PLACE)}${fetch('incoming', 'dout', QUERY_PLACE)}
    var block_stats: array<vec2f, STATS_READS>;
    for (var i = 0u; i < STATS_READS; i++) {
      let row = clamp(start + min(i * 4u + lane % 4u, BLOCK - 1u), begin, end - 1u);
      block_stats[i] = stats[row * params.heads + query_head];
    }${products('dot', 'key', 'query')}${products('slope', 'value', 'incoming')}
    var probability: array<array<f32, BLOCK>, ROWS>;
    var ds: array<array<f32, BLOCK>, ROWS>;
    for (var j = 0u; j < BLOCK; j++) {
      let stat = quadBroadcast(block_stats[j / 4u], j % 4u);
      for (var r = 0u; r < ROWS; r++) {
        probability[r][j] = select(0.0, exp(part_sum(dot[r][j]) - stat.x), ${SEEN});
        ds[r][j] = probability[r][j] * (part_sum(slope[r][j]) - stat.y) * params.scale;
      }
    }${sums('key_gradient', 'ds', 'query')}${sums('value_gradient', 'probability', 'incoming')}
  }
  }${store(KEYS, [
    ['out', 'key_gradient'],
    ['dv', 'value_gradient'],
  ])}`;

/** The text of all entry points, for heads of `parts` Parts that `partCode` declares. */
export function quadShaderCode(partCode: string, parts: number, { rows, block }: QuadShape): string {
  const limits = {
    ROWS: rows,
    BLOCK: block,
    PARTS: parts,
    LAST: parts - 1,
    READS: Math.ceil((block * parts) / 4),
    STATS_READS: Math.ceil(block / 4),
  };
  const constants = Object.entries({ ...limits, WORKGROUP }).map(([name, n]) => `const ${name} = ${n}u;\n`);
  const entryPoints = unroll(forward + backwardQuery + backwardKey, limits);
  return `diagnostic(off, subgroup_uniformity);\n${partCode}${constants.join('')}${paramsCode}${entryPoints}`;
}
