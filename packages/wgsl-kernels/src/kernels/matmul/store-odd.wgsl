
// End of nt.wgsl for any number of columns.
@group(0) @binding(3) var<storage, read_write> c: array<f32>;

fn store(row: u32, column: u32, low: vec4f, high: vec4f) {
  if (row >= params.rows) {
    return;
  }
  let at = row * params.cStride + params.cColumn + column;
  let count = min(params.columns - column, 8u);
  for (var i = 0u; i < count; i++) {
    let value = params.alpha * select(high[i & 3u], low[i & 3u], i < 4u);
    if (params.accumulate != 0u) {
      c[at + i] += value;
    } else {
      c[at + i] = value;
    }
  }
}
