// c = α·a·bᵀ or α·a·b (+ c) for sizes of any kind: b[k, n] lies at k·bInner + n·bColumn. Each invocation keeps an 8×8 tile of c in
// registers and walks k with running offsets; nothing is staged in workgroup memory, which software adapters would pay for
// and caches make up for. Indices beyond the edge are clamped for reading and skipped by `store`. This text is completed by
// params.wgsl, by a text that reads b, and by an epilogue.

@group(0) @binding(1) var<storage, read_write> a: array<f32>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let tile = (params.firstGroup + wg.y * groups.x + wg.x) * 32u + local;
  let tileColumns = (params.columns + 7u) / 8u;
  let row = (tile / tileColumns) * 8u;
  let column = (tile % tileColumns) * 8u;
  if (row >= params.rows) {
    return;
  }
  let lastRow = params.rows - 1u;
  let lastColumn = params.columns - 1u;
  var a0 = row * params.aStride + params.aColumn;
  var a1 = min(row + 1u, lastRow) * params.aStride + params.aColumn;
  var a2 = min(row + 2u, lastRow) * params.aStride + params.aColumn;
  var a3 = min(row + 3u, lastRow) * params.aStride + params.aColumn;
  var a4 = min(row + 4u, lastRow) * params.aStride + params.aColumn;
  var a5 = min(row + 5u, lastRow) * params.aStride + params.aColumn;
  var a6 = min(row + 6u, lastRow) * params.aStride + params.aColumn;
  var a7 = min(row + 7u, lastRow) * params.aStride + params.aColumn;
  let bInner = select(params.bStride, 1u, params.transposed != 0u);
  let bColumn = select(1u, params.bStride, params.transposed != 0u);
  var b0 = column * bColumn;
  var b1 = min(column + 1u, lastColumn) * bColumn;
  var b2 = min(column + 2u, lastColumn) * bColumn;
  var b3 = min(column + 3u, lastColumn) * bColumn;
  var b4 = min(column + 4u, lastColumn) * bColumn;
  var b5 = min(column + 5u, lastColumn) * bColumn;
  var b6 = min(column + 6u, lastColumn) * bColumn;
  var b7 = min(column + 7u, lastColumn) * bColumn;
  var l0 = vec4f(); var h0 = vec4f();
  var l1 = vec4f(); var h1 = vec4f();
  var l2 = vec4f(); var h2 = vec4f();
  var l3 = vec4f(); var h3 = vec4f();
  var l4 = vec4f(); var h4 = vec4f();
  var l5 = vec4f(); var h5 = vec4f();
  var l6 = vec4f(); var h6 = vec4f();
  var l7 = vec4f(); var h7 = vec4f();
  for (var k = 0u; k < params.inner; k++) {
    let low = vec4f(weight(b0), weight(b1), weight(b2), weight(b3));
    let high = vec4f(weight(b4), weight(b5), weight(b6), weight(b7));
    let v0 = a[a0]; l0 = fma(vec4f(v0), low, l0); h0 = fma(vec4f(v0), high, h0);
    let v1 = a[a1]; l1 = fma(vec4f(v1), low, l1); h1 = fma(vec4f(v1), high, h1);
    let v2 = a[a2]; l2 = fma(vec4f(v2), low, l2); h2 = fma(vec4f(v2), high, h2);
    let v3 = a[a3]; l3 = fma(vec4f(v3), low, l3); h3 = fma(vec4f(v3), high, h3);
    let v4 = a[a4]; l4 = fma(vec4f(v4), low, l4); h4 = fma(vec4f(v4), high, h4);
    let v5 = a[a5]; l5 = fma(vec4f(v5), low, l5); h5 = fma(vec4f(v5), high, h5);
    let v6 = a[a6]; l6 = fma(vec4f(v6), low, l6); h6 = fma(vec4f(v6), high, h6);
    let v7 = a[a7]; l7 = fma(vec4f(v7), low, l7); h7 = fma(vec4f(v7), high, h7);
    a0 += 1u; a1 += 1u; a2 += 1u; a3 += 1u;
    a4 += 1u; a5 += 1u; a6 += 1u; a7 += 1u;
    b0 += bInner; b1 += bInner; b2 += bInner; b3 += bInner;
    b4 += bInner; b5 += bInner; b6 += bInner; b7 += bInner;
  }
  var low = array<vec4f, 8>(l0, l1, l2, l3, l4, l5, l6, l7);
  var high = array<vec4f, 8>(h0, h1, h2, h3, h4, h5, h6, h7);
  let count = min(8u, params.rows - row);
  for (var i = 0u; i < count; i++) {
    store(row + i, column, low[i]);
    store(row + i, column + 4u, high[i]);
  }
}
