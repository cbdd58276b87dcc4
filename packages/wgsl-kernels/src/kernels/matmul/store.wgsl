
// End of nt.wgsl and nn.wgsl where c's rows are whole vectors of four: writing these costs half of writing single elements.
@group(0) @binding(3) var<storage, read_write> c: array<vec4f>;

fn store(row: u32, column: u32, low: vec4f, high: vec4f) {
  if (row >= params.rows) {
    return;
  }
  let at = (row * params.cStride + params.cColumn + column) / 4u;
  if (params.accumulate != 0u) {
    c[at] += params.alpha * low;
  } else {
    c[at] = params.alpha * low;
  }
  if (column + 4u >= params.columns) {
    return;
  }
  if (params.accumulate != 0u) {
    c[at + 1u] += params.alpha * high;
  } else {
    c[at + 1u] = params.alpha * high;
  }
}
