// Causal grouped-query attention, forward and backward, without a T×T matrix in memory (Dao et al. 2022): the forward pass
// keeps a running maximum and sum per query and stores their log-sum-exp; the backward pass rebuilds probabilities from
// it. One invocation a query (forward, dq) or a key (dk, dv), so nothing is added atomically and equal input gives equal
// bytes. Loops over the parts of a head are unrolled by attention.ts before compiling (HEAD_SIZE, in Parts), so that the
// arrays of a head become registers; Part is vec4f where a head is a multiple of four long and f32 elsewhere, part_dot its
// inner product.

struct Params {
  batch: u32,
  sequence: u32,
  heads: u32,
  kvHeads: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

// A finite stand-in for −∞: shaders may assume that infinities never occur.
const LOWEST: f32 = -1e30;

struct Query {
  inside: bool,
  position: u32,
  // First element of this query, and of key 0 of its sequence.
  at: u32,
  keys: u32,
  keyStride: u32,
  index: u32,
}

fn locate(i: u32) -> Query {
  let head = i % params.heads;
  let row = i / params.heads;
  let position = row % params.sequence;
  let first = row - position;
  let keyStride = params.kvHeads * HEAD_SIZE;
  let kvHead = head / (params.heads / params.kvHeads);
  return Query(row < params.batch * params.sequence, position, i * HEAD_SIZE, first * keyStride + kvHead * HEAD_SIZE, keyStride, i);
}

@group(0) @binding(1) var<storage, read_write> q: array<Part>;
@group(0) @binding(2) var<storage, read_write> k: array<Part>;
@group(0) @binding(3) var<storage, read_write> v: array<Part>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<Part>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let query = locate((wg.y * groups.x + wg.x) * 64u + local);
  if (!query.inside) {
    return;
  }
  var own: array<Part, HEAD_SIZE>;
  var sum: array<Part, HEAD_SIZE>;
  for (var d = 0u; d < HEAD_SIZE; d++) {
    own[d] = q[query.at + d] * params.scale;
  }
  var highest = LOWEST;
  var total = 0.0;
  for (var j = 0u; j <= query.position; j++) {
    let key = query.keys + j * query.keyStride;
    var score = 0.0;
    for (var d = 0u; d < HEAD_SIZE; d++) {
      score += part_dot(own[d], k[key + d]);
    }
    let next = max(highest, score);
    let keep = exp(highest - next);
    let weight = exp(score - next);
    total = fma(total, keep, weight);
    for (var d = 0u; d < HEAD_SIZE; d++) {
      sum[d] = sum[d] * keep + weight * v[key + d];
    }
    highest = next;
  }
  for (var d = 0u; d < HEAD_SIZE; d++) {
    out[query.at + d] = sum[d] / total;
  }
  lse[query.index] = highest + log(total);
}

// delta = Σ dout·out of each query: the part of the softmax gradient that all its keys share.
@group(0) @binding(6) var<storage, read_write> dout: array<Part>;
@group(0) @binding(7) var<storage, read_write> delta: array<f32>;

@compute @workgroup_size(64)
fn row_delta(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = (wg.y * groups.x + wg.x) * 64u + local;
  if (i >= params.batch * params.sequence * params.heads) {
    return;
  }
  var sum = 0.0;
  for (var d = 0u; d < HEAD_SIZE; d++) {
    sum += part_dot(dout[i * HEAD_SIZE + d], out[i * HEAD_SIZE + d]);
  }
  delta[i] = sum;
}

// In the two entry points below `out` is what is written: dq, or dk with dv beside it in @binding(8).
@compute @workgroup_size(64)
fn backward_query(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let query = locate((wg.y * groups.x + wg.x) * 64u + local);
  if (!query.inside) {
    return;
  }
  var own: array<Part, HEAD_SIZE>;
  var incoming: array<Part, HEAD_SIZE>;
  var gradient: array<Part, HEAD_SIZE>;
  for (var d = 0u; d < HEAD_SIZE; d++) {
    own[d] = q[query.at + d] * params.scale;
    incoming[d] = dout[query.at + d];
  }
  let shift = lse[query.index];
  let shared_part = delta[query.index];
  for (var j = 0u; j <= query.position; j++) {
    let key = query.keys + j * query.keyStride;
    var score = 0.0;
    var slope = 0.0;
    for (var d = 0u; d < HEAD_SIZE; d++) {
      score += part_dot(own[d], k[key + d]);
      slope += part_dot(incoming[d], v[key + d]);
    }
    let ds = exp(score - shift) * (slope - shared_part) * params.scale;
    for (var d = 0u; d < HEAD_SIZE; d++) {
      gradient[d] += ds * k[key + d];
    }
  }
  for (var d = 0u; d < HEAD_SIZE; d++) {
    out[query.at + d] = gradient[d];
  }
}

@group(0) @binding(8) var<storage, read_write> dv: array<Part>;

@compute @workgroup_size(64)
fn backward_key(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = (wg.y * groups.x + wg.x) * 64u + local;
  let row = i / params.kvHeads;
  if (row >= params.batch * params.sequence) {
    return;
  }
  let kvHead = i % params.kvHeads;
  let position = row % params.sequence;
  let group = params.heads / params.kvHeads;
  let at = i * HEAD_SIZE;
  var key: array<Part, HEAD_SIZE>;
  var value: array<Part, HEAD_SIZE>;
  var keyGradient: array<Part, HEAD_SIZE>;
  var valueGradient: array<Part, HEAD_SIZE>;
  for (var d = 0u; d < HEAD_SIZE; d++) {
    key[d] = k[at + d] * params.scale;
    value[d] = v[at + d];
  }
  for (var later = position; later < params.sequence; later++) {
    for (var g = 0u; g < group; g++) {
      let index = (row - position + later) * params.heads + kvHead * group + g;
      let query = index * HEAD_SIZE;
      var score = 0.0;
      var slope = 0.0;
      for (var d = 0u; d < HEAD_SIZE; d++) {
        score += part_dot(q[query + d], key[d]);
        slope += part_dot(dout[query + d], value[d]);
      }
      let probability = exp(score - lse[index]);
      let ds = probability * (slope - delta[index]) * params.scale;
      for (var d = 0u; d < HEAD_SIZE; d++) {
        keyGradient[d] += ds * q[query + d];
        valueGradient[d] += probability * dout[query + d];
      }
    }
  }
  for (var d = 0u; d < HEAD_SIZE; d++) {
    out[at + d] = keyGradient[d];
    dv[at + d] = valueGradient[d];
  }
}
