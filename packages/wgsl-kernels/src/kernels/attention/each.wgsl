// Attention of few queries where invocations are few as well, as on software adapters: one has one head of one query, with
// neighbours for the other heads, and reads four keys at a time for every access to its own vectors, which stand in memory.
// shaders.ts puts the type Part before this text, and params.wgsl.

@compute @workgroup_size(8)
fn forward(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = (params.firstGroup + wg.y * groups.x + wg.x) * 8u + local;
  if (i >= params.queries * params.heads) {
    return;
  }
  let kv_head = i % params.heads / (params.heads / params.kvHeads);
  let span = spans[i / params.heads];
  let count = visible(span);
  var query: array<Part, PARTS>;
  var sum: array<Part, PARTS>;
  // PARTS again: loops of a known length are written out, which takes some compilers long.
  for (var d = 0u; d < params.parts; d++) {
    query[d] = params.scale * q[i * params.parts + d];
  }
  var highest = LOWEST;
  var total = 0.0;
  for (var start = 0u; start < count; start += 4u) {
    let n = start + vec4u(0u, 1u, 2u, 3u);
    let row = span.y + 1u - count + min(n, vec4u(count - 1u));
    let key = (row * params.kvHeads + kv_head) * params.parts;
    var dot = array<Part, 4>();
    for (var d = 0u; d < params.parts; d++) {
      let own = query[d];
      dot[0] = fma(own, k[key.x + d], dot[0]);
      dot[1] = fma(own, k[key.y + d], dot[1]);
      dot[2] = fma(own, k[key.z + d], dot[2]);
      dot[3] = fma(own, k[key.w + d], dot[3]);
    }
    let seen = n < vec4u(count);
    let scores = select(vec4f(LOWEST), vec4f(part_sum(dot[0]), part_sum(dot[1]), part_sum(dot[2]), part_sum(dot[3])), seen);
    let next = max(highest, max(max(scores.x, scores.y), max(scores.z, scores.w)));
    let keep = exp(highest - next);
    let weight = select(vec4f(), exp(scores - next), seen);
    highest = next;
    total = fma(total, keep, (weight.x + weight.y) + (weight.z + weight.w));
    for (var d = 0u; d < params.parts; d++) {
      let low = fma(Part(weight.y), v[key.y + d], weight.x * v[key.x + d]);
      let high = fma(Part(weight.w), v[key.w + d], weight.z * v[key.z + d]);
      sum[d] = fma(Part(keep), sum[d], low + high);
    }
  }
  // A query that sees nothing gets zero.
  let divisor = select(total, 1.0, count == 0u);
  for (var d = 0u; d < params.parts; d++) {
    out[i * params.parts + d] = (1.0 / divisor) * sum[d];
  }
  lse[i] = highest + log(divisor);
}
