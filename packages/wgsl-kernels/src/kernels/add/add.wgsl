// out = x + y, four vectors an invocation.

struct Params {
  count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<Vector>;
@group(0) @binding(2) var<storage, read_write> y: array<Vector>;
@group(0) @binding(3) var<storage, read_write> out: array<Vector>;

fn add_at(i: u32) {
  if (i < params.count) {
    out[i] = x[i] + y[i];
  }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (wg.y * groups.x + wg.x) * 256u + local * OWN;
  add_at(first);
  add_at(first + STEP);
  add_at(first + 2u * STEP);
  add_at(first + 3u * STEP);
}
