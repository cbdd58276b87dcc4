// out[n, :] = table[ids[n], :] for the ids that lie in one part of the table; the other rows are left alone. Ids beyond the
// table read its last row; the trainer refuses such ids before. A weight-*.wgsl completes this text and reads the part.

struct Params {
  rows: u32,
  width: u32,
  vocabulary: u32,
  firstRow: u32,
  partRows: u32,
  stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (wg.y * groups.x + wg.x) * 64u + local;
  let stride = groups.x * groups.y * 64u;
  for (var i = first; i < params.rows * params.width; i += stride) {
    // Wraps around below the part, and so lies beyond it too.
    let row = min(ids[i / params.width], params.vocabulary - 1u) - params.firstRow;
    if (row < params.partRows) {
      out[i] = weight(row * params.stride + i % params.width);
    }
  }
}
