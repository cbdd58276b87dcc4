// out[rows[n], :] = x[n, :]: new keys and values to their places in a cache. Rows beyond the end of out are left out.

struct Params {
  rows: u32,
  width: u32,
  outRows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> rows: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (wg.y * groups.x + wg.x) * 64u + local;
  let stride = groups.x * groups.y * 64u;
  for (var i = first; i < params.rows * params.width; i += stride) {
    let row = rows[i / params.width];
    if (row < params.outRows) {
      out[row * params.width + i % params.width] = x[i];
    }
  }
}
