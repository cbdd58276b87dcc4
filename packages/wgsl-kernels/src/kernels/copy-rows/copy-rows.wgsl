// out[rows[n], :] = x[n, :]: new keys and values to their places in a cache. Rows beyond the end of out are left out. Four
// vectors an invocation.

struct Params {
  // Vectors of x, and of a row.
  count: u32,
  width: u32,
  outRows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<Vector>;
@group(0) @binding(2) var<storage, read_write> rows: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<Vector>;

fn copy_at(i: u32) {
  if (i < params.count) {
    let row = rows[i / params.width];
    if (row < params.outRows) {
      out[row * params.width + i % params.width] = x[i];
    }
  }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (wg.y * groups.x + wg.x) * 256u + local * OWN;
  copy_at(first);
  copy_at(first + STEP);
  copy_at(first + 2u * STEP);
  copy_at(first + 3u * STEP);
}
