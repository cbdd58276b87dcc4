// Copies from one place to another. `Value` stands before this text.

struct Params {
  count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<Value>;
@group(0) @binding(2) var<storage, read_write> out: array<Value>;

// Neighbours copy neighbours, and go on beyond the last invocation.
@compute @workgroup_size(64)
fn copy(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (wg.y * groups.x + wg.x) * 64u + local;
  let stride = groups.x * groups.y * 64u;
  for (var i = first; i < params.count; i += stride) {
    out[i] = x[i];
  }
}

// Four elements in a row an invocation.
@compute @workgroup_size(64)
fn copy_four(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = 4u * ((wg.y * groups.x + wg.x) * 64u + local);
  if (i + 4u <= params.count) {
    out[i] = x[i];
    out[i + 1u] = x[i + 1u];
    out[i + 2u] = x[i + 2u];
    out[i + 3u] = x[i + 3u];
  }
}
