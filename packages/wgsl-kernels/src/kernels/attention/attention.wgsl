// Grouped-query attention over spans of keys, forward and backward, without a matrix of all scores in memory (Dao et al.
// 2022): the forward pass keeps a running maximum and sum per query and stores their log-sum-exp; the backward pass
// rebuilds probabilities from it. One invocation a query (forward, dq) or a key (dk, dv), so nothing is added atomically
// and equal input gives equal bytes. A head is PARTS Parts. attention.ts puts their type before this text, and one.wgsl or
// four.wgsl: how many keys are read at a time. It writes the loops over a head out where a head is small.

struct Params {
  // Rows of q, and of k and v.
  queries: u32,
  keys: u32,
  heads: u32,
  kvHeads: u32,
  // Keys a query sees at most, and queries that see a key.
  window: u32,
  // PARTS again: compilers write loops out whose end they know, which takes them minutes for large heads.
  parts: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

// A finite stand-in for −∞: shaders may assume that infinities never occur.
const LOWEST: f32 = -1e30;

@group(0) @binding(1) var<storage, read_write> q: array<Part>;
@group(0) @binding(2) var<storage, read_write> k: array<Part>;
@group(0) @binding(3) var<storage, read_write> v: array<Part>;
// First and last row of k that each query sees; in backward_key, of q that sees each key.
@group(0) @binding(4) var<storage, read_write> spans: array<vec2u>;
@group(0) @binding(5) var<storage, read_write> out: array<Part>;
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;
@group(0) @binding(7) var<storage, read_write> dout: array<Part>;
// (lse, delta) of each query, delta = Σ dout·out: the part of the softmax gradient that all its keys share.
@group(0) @binding(8) var<storage, read_write> stats: array<vec2f>;
@group(0) @binding(9) var<storage, read_write> dv: array<Part>;

// How many rows of a span count. None where the last comes before the first.
fn visible(span: vec2u) -> u32 {
  return select(min(params.window, span.y - span.x + 1u), 0u, span.y < span.x);
}

// Where these rows of k begin, in the head that query i of all rows and heads attends to.
fn keys_at(i: u32, rows: Places) -> Places {
  let kvHead = i % params.heads / (params.heads / params.kvHeads);
  return (rows * params.kvHeads + kvHead) * PARTS;
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = (wg.y * groups.x + wg.x) * 64u + local;
  if (i >= params.queries * params.heads) {
    return;
  }
  let span = spans[i / params.heads];
  let count = visible(span);
  var query: array<Part, PARTS>;
  var sum: array<Part, PARTS>;
  for (var d = 0u; d < params.parts; d++) {
    query[d] = q[i * PARTS + d] * params.scale;
  }
  var highest = LOWEST;
  var total = 0.0;
  for (var n = 0u; n < count; n += STEP) {
    let key = keys_at(i, span.y + 1u - count + places(n, count));
    var dots = Lanes();
    for (var d = 0u; d < params.parts; d++) {
      dots += k_dots(query[d], key, d);
    }
    let scores = masked(dots, LOWEST, n, count);
    let next = max(highest, highest_of(scores));
    let keep = exp(highest - next);
    let weights = exp(scores - next);
    total = fma(total, keep, sum_of(weights));
    for (var d = 0u; d < params.parts; d++) {
      sum[d] = sum[d] * keep + v_sum(weights, key, d);
    }
    highest = next;
  }
  // A query that sees nothing gets zero.
  let divisor = select(total, 1.0, count == 0u);
  for (var d = 0u; d < params.parts; d++) {
    out[i * PARTS + d] = sum[d] / divisor;
  }
  lse[i] = highest + log(divisor);
}

@compute @workgroup_size(64)
fn row_stats(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = (wg.y * groups.x + wg.x) * 64u + local;
  if (i >= params.queries * params.heads) {
    return;
  }
  var delta = 0.0;
  for (var d = 0u; d < params.parts; d++) {
    delta += part_dot(dout[i * PARTS + d], out[i * PARTS + d]);
  }
  stats[i] = vec2f(lse[i], delta);
}

// In the two entry points below `out` is what is written: dq, or dk with dv beside it.
@compute @workgroup_size(64)
fn backward_query(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = (wg.y * groups.x + wg.x) * 64u + local;
  if (i >= params.queries * params.heads) {
    return;
  }
  let span = spans[i / params.heads];
  let count = visible(span);
  let stat = stats[i];
  var query: array<Part, PARTS>;
  var incoming: array<Part, PARTS>;
  var gradient: array<Part, PARTS>;
  for (var d = 0u; d < params.parts; d++) {
    query[d] = q[i * PARTS + d] * params.scale;
    incoming[d] = dout[i * PARTS + d];
  }
  for (var n = 0u; n < count; n += STEP) {
    let key = keys_at(i, span.y + 1u - count + places(n, count));
    var scores = Lanes();
    var slopes = Lanes();
    for (var d = 0u; d < params.parts; d++) {
      scores += k_dots(query[d], key, d);
      slopes += v_dots(incoming[d], key, d);
    }
    let probabilities = masked(exp(scores - stat.x), 0.0, n, count);
    let ds = probabilities * (slopes - stat.y) * params.scale;
    for (var d = 0u; d < params.parts; d++) {
      gradient[d] += k_sum(ds, key, d);
    }
  }
  for (var d = 0u; d < params.parts; d++) {
    out[i * PARTS + d] = gradient[d];
  }
}

@compute @workgroup_size(64)
fn backward_key(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = (wg.y * groups.x + wg.x) * 64u + local;
  if (i >= params.keys * params.kvHeads) {
    return;
  }
  let span = spans[i / params.kvHeads];
  // The queries that see this key: row after row, and in each the heads that share it.
  let group = params.heads / params.kvHeads;
  let count = visible(span) * group;
  let head = i % params.kvHeads * group;
  var key: array<Part, PARTS>;
  var value: array<Part, PARTS>;
  var keyGradient: array<Part, PARTS>;
  var valueGradient: array<Part, PARTS>;
  for (var d = 0u; d < params.parts; d++) {
    key[d] = k[i * PARTS + d] * params.scale;
    value[d] = v[i * PARTS + d];
  }
  for (var n = 0u; n < count; n += STEP) {
    let place = places(n, count);
    let index = (span.x + place / group) * params.heads + head + place % group;
    let query = index * PARTS;
    var scores = Lanes();
    var slopes = Lanes();
    for (var d = 0u; d < params.parts; d++) {
      scores += q_dots(key[d], query, d);
      slopes += dout_dots(value[d], query, d);
    }
    let probabilities = masked(exp(scores - lse_of(index)), 0.0, n, count);
    let ds = probabilities * (slopes - delta_of(index)) * params.scale;
    for (var d = 0u; d < params.parts; d++) {
      keyGradient[d] += q_sum(ds, query, d);
      valueGradient[d] += dout_sum(probabilities, query, d);
    }
  }
  for (var d = 0u; d < params.parts; d++) {
    out[i * PARTS + d] = keyGradient[d];
    dv[i * PARTS + d] = valueGradient[d];
  }
}
