// y[n, :] += bias: the bias vector of a linear layer, after its product. Four vectors an invocation.

struct Params {
  // Vectors of y, and of a row.
  count: u32,
  width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> y: array<Vector>;
@group(0) @binding(2) var<storage, read_write> bias: array<Vector>;

fn add_at(i: u32) {
  if (i < params.count) {
    y[i] += bias[i % params.width];
  }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (wg.y * groups.x + wg.x) * 256u + local;
  add_at(first);
  add_at(first + 64u);
  add_at(first + 128u);
  add_at(first + 192u);
}
