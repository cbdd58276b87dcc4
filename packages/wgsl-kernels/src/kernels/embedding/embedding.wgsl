// out[n, :] = table[ids[n], :]. Ids beyond the table read its last row; the trainer refuses such ids before.

struct Params {
  rows: u32,
  width: u32,
  vocabulary: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> table: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (wg.y * groups.x + wg.x) * 64u + local;
  let stride = groups.x * groups.y * 64u;
  for (var i = first; i < params.rows * params.width; i += stride) {
    let id = min(ids[i / params.width], params.vocabulary - 1u);
    out[i] = table[id * params.width + i % params.width];
  }
}
