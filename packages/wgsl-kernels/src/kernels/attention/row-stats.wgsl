// (lse, delta) of each query, for the backward pass; delta = Σ dout·out, one invocation a query. attention.ts puts the type
// Part before this text, and params.wgsl.

@compute @workgroup_size(64)
fn row_stats(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = (params.firstGroup + wg.y * groups.x + wg.x) * 64u + local;
  if (i >= params.queries * params.heads) {
    return;
  }
  var delta = Part();
  for (var d = 0u; d < params.parts; d++) {
    delta = fma(dout[i * params.parts + d], out[i * params.parts + d], delta);
  }
  stats[i] = vec2f(lse[i], part_sum(delta));
}
