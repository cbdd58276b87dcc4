// Attention of few queries, as in decoding: a workgroup has one head of one query, and each invocation one key in 64 of
// those the query sees. Weighted values are summed by invocations that have one Part each, in as many slices of the keys as
// there are invocations for. split.ts puts the type Part before this text, and params.wgsl.

const KEYS = 64u;
const EIGHT = 8u;

// Scores of 64 keys, then their weights.
var<workgroup> scores: array<f32, KEYS>;
var<workgroup> eighths: array<f32, EIGHT>;
var<workgroup> slices: array<Part, KEYS>;
var<workgroup> seen: vec2u;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let group = params.firstGroup + wg.y * groups.x + wg.x;
  if (group >= params.queries * params.heads) {
    return;
  }
  let kv_head = group % params.heads / (params.heads / params.kvHeads);
  if (local == 0u) {
    let span = spans[group / params.heads];
    seen = vec2u(visible(span), span.y);
  }
  let count_and_last = workgroupUniformLoad(&seen);
  let count = count_and_last.x;
  let first = count_and_last.y + 1u - count;

  let slice_count = max(1u, KEYS / params.parts);
  let slice = local / params.parts;
  let column = local % params.parts;
  var sum: array<Part, COLUMNS>;
  var highest = LOWEST;
  var total = 0.0;
  for (var start = 0u; start < count; start += KEYS) {
    let key = ((first + min(start + local, count - 1u)) * params.kvHeads + kv_head) * params.parts;
    var dot = Part();
    for (var d = 0u; d < params.parts; d++) {
      dot = fma(q[group * params.parts + d], k[key + d], dot);
    }
    let score = select(LOWEST, part_sum(dot) * params.scale, start + local < count);
    scores[local] = score;
    workgroupBarrier();
    if (local < EIGHT) {
      var eighth = LOWEST;
      for (var i = 0u; i < EIGHT; i++) {
        eighth = max(eighth, scores[local * EIGHT + i]);
      }
      eighths[local] = eighth;
    }
    workgroupBarrier();
    var next = highest;
    for (var i = 0u; i < EIGHT; i++) {
      next = max(next, eighths[i]);
    }
    let keep = exp(highest - next);
    let weight = select(0.0, exp(score - next), start + local < count);
    highest = next;
    total = fma(total, keep, weight);
    scores[local] = weight;
    workgroupBarrier();
    for (var c = 0u; c < COLUMNS; c++) {
      var partial = keep * sum[c];
      if (slice < slice_count && column + c * KEYS < params.parts) {
        for (var n = slice; n < min(KEYS, count - start); n += slice_count) {
          let value = ((first + start + n) * params.kvHeads + kv_head) * params.parts;
          partial = fma(Part(scores[n]), v[value + column + c * KEYS], partial);
        }
      }
      sum[c] = partial;
    }
    workgroupBarrier();
  }

  scores[local] = total;
  workgroupBarrier();
  var all_keys = 0.0;
  for (var i = 0u; i < KEYS; i++) {
    all_keys += scores[i];
  }
  // A query that sees nothing gets zero.
  let divisor = select(all_keys, 1.0, count == 0u);
  for (var c = 0u; c < COLUMNS; c++) {
    slices[local] = sum[c];
    workgroupBarrier();
    if (slice == 0u && column + c * KEYS < params.parts) {
      var all_slices = slices[local];
      for (var i = 1u; i < slice_count; i++) {
        all_slices += slices[i * params.parts + local];
      }
      out[group * params.parts + column + c * KEYS] = (1.0 / divisor) * all_slices;
    }
    workgroupBarrier();
  }
  if (local == 0u) {
    lse[group] = highest + log(divisor);
  }
}
