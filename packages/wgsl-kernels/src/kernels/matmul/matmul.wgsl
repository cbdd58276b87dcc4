// c = α·a·b (+ c), for any strides: a[m, k] lies at m·aRow + k·aInner, b[k, n] at k·bInner + n·bColumn. One shader serves
// x·Wᵀ, dy·W and the products with the LoRA factors. Each invocation keeps an 8×8 tile of c in registers and walks k with
// running offsets; nothing is staged in workgroup memory, which software adapters would pay for and caches make up for.
// Indices beyond the edge are clamped for reading and skipped for writing.

struct Params {
  rows: u32,
  columns: u32,
  inner: u32,
  aRow: u32,
  aInner: u32,
  bInner: u32,
  bColumn: u32,
  accumulate: u32,
  alpha: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;

fn store_row(row: u32, column: u32, low: vec4f, high: vec4f) {
  if (row >= params.rows) {
    return;
  }
  let base = row * params.columns + column;
  let count = params.columns - column;
  for (var i = 0u; i < 8u; i++) {
    if (i >= count) {
      return;
    }
    let value = params.alpha * select(high[i & 3u], low[i & 3u], i < 4u);
    if (params.accumulate != 0u) {
      c[base + i] += value;
    } else {
      c[base + i] = value;
    }
  }
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let tile = (wg.y * groups.x + wg.x) * 32u + local;
  let tileColumns = (params.columns + 7u) / 8u;
  let row = (tile / tileColumns) * 8u;
  let column = (tile % tileColumns) * 8u;
  if (row >= params.rows) {
    return;
  }
  let lastRow = params.rows - 1u;
  let lastColumn = params.columns - 1u;
  var a0 = row * params.aRow;
  var a1 = min(row + 1u, lastRow) * params.aRow;
  var a2 = min(row + 2u, lastRow) * params.aRow;
  var a3 = min(row + 3u, lastRow) * params.aRow;
  var a4 = min(row + 4u, lastRow) * params.aRow;
  var a5 = min(row + 5u, lastRow) * params.aRow;
  var a6 = min(row + 6u, lastRow) * params.aRow;
  var a7 = min(row + 7u, lastRow) * params.aRow;
  var b0 = column * params.bColumn;
  var b1 = min(column + 1u, lastColumn) * params.bColumn;
  var b2 = min(column + 2u, lastColumn) * params.bColumn;
  var b3 = min(column + 3u, lastColumn) * params.bColumn;
  var b4 = min(column + 4u, lastColumn) * params.bColumn;
  var b5 = min(column + 5u, lastColumn) * params.bColumn;
  var b6 = min(column + 6u, lastColumn) * params.bColumn;
  var b7 = min(column + 7u, lastColumn) * params.bColumn;
  var l0 = vec4f(); var h0 = vec4f();
  var l1 = vec4f(); var h1 = vec4f();
  var l2 = vec4f(); var h2 = vec4f();
  var l3 = vec4f(); var h3 = vec4f();
  var l4 = vec4f(); var h4 = vec4f();
  var l5 = vec4f(); var h5 = vec4f();
  var l6 = vec4f(); var h6 = vec4f();
  var l7 = vec4f(); var h7 = vec4f();
  for (var k = 0u; k < params.inner; k++) {
    let low = vec4f(b[b0], b[b1], b[b2], b[b3]);
    let high = vec4f(b[b4], b[b5], b[b6], b[b7]);
    let v0 = a[a0]; l0 = fma(vec4f(v0), low, l0); h0 = fma(vec4f(v0), high, h0);
    let v1 = a[a1]; l1 = fma(vec4f(v1), low, l1); h1 = fma(vec4f(v1), high, h1);
    let v2 = a[a2]; l2 = fma(vec4f(v2), low, l2); h2 = fma(vec4f(v2), high, h2);
    let v3 = a[a3]; l3 = fma(vec4f(v3), low, l3); h3 = fma(vec4f(v3), high, h3);
    let v4 = a[a4]; l4 = fma(vec4f(v4), low, l4); h4 = fma(vec4f(v4), high, h4);
    let v5 = a[a5]; l5 = fma(vec4f(v5), low, l5); h5 = fma(vec4f(v5), high, h5);
    let v6 = a[a6]; l6 = fma(vec4f(v6), low, l6); h6 = fma(vec4f(v6), high, h6);
    let v7 = a[a7]; l7 = fma(vec4f(v7), low, l7); h7 = fma(vec4f(v7), high, h7);
    a0 += params.aInner; a1 += params.aInner; a2 += params.aInner; a3 += params.aInner;
    a4 += params.aInner; a5 += params.aInner; a6 += params.aInner; a7 += params.aInner;
    b0 += params.bInner; b1 += params.bInner; b2 += params.bInner; b3 += params.bInner;
    b4 += params.bInner; b5 += params.bInner; b6 += params.bInner; b7 += params.bInner;
  }
  store_row(row, column, l0, h0);
  store_row(row + 1u, column, l1, h1);
  store_row(row + 2u, column, l2, h2);
  store_row(row + 3u, column, l3, h3);
  store_row(row + 4u, column, l4, h4);
  store_row(row + 5u, column, l5, h5);
  store_row(row + 6u, column, l6, h6);
  store_row(row + 7u, column, l7, h7);
}
