// c = α·a·bᵀ (+ c) for a [M, K] and b [N, K] with K a multiple of four. An invocation keeps 16×8 sums in registers and takes four
// steps of k at a time: x · mat4x4f(y0, y1, y2, y3) is the dot products of x with four rows of b. The tile is tall because
// software adapters pay per load. Rows beyond the edge are clamped for reading and skipped by `store`. This text is
// completed by params.wgsl, by a weight-*.wgsl that reads b, and by store.wgsl or store-odd.wgsl.

@group(0) @binding(1) var<storage, read_write> a: array<vec4f>;

@compute @workgroup_size(16)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let tile = (wg.y * groups.x + wg.x) * 16u + local;
  let tileColumns = (params.columns + 7u) / 8u;
  let row = (tile / tileColumns) * 16u;
  let column = (tile % tileColumns) * 8u;
  if (row >= params.rows) {
    return;
  }
  let inner = params.inner / 4u;
  let aStride = params.aStride / 4u;
  let aColumn = params.aColumn / 4u;
  let lastRow = params.rows - 1u;
  let a0 = min(row + 0u, lastRow) * aStride + aColumn;
  let a1 = min(row + 1u, lastRow) * aStride + aColumn;
  let a2 = min(row + 2u, lastRow) * aStride + aColumn;
  let a3 = min(row + 3u, lastRow) * aStride + aColumn;
  let a4 = min(row + 4u, lastRow) * aStride + aColumn;
  let a5 = min(row + 5u, lastRow) * aStride + aColumn;
  let a6 = min(row + 6u, lastRow) * aStride + aColumn;
  let a7 = min(row + 7u, lastRow) * aStride + aColumn;
  let a8 = min(row + 8u, lastRow) * aStride + aColumn;
  let a9 = min(row + 9u, lastRow) * aStride + aColumn;
  let a10 = min(row + 10u, lastRow) * aStride + aColumn;
  let a11 = min(row + 11u, lastRow) * aStride + aColumn;
  let a12 = min(row + 12u, lastRow) * aStride + aColumn;
  let a13 = min(row + 13u, lastRow) * aStride + aColumn;
  let a14 = min(row + 14u, lastRow) * aStride + aColumn;
  let a15 = min(row + 15u, lastRow) * aStride + aColumn;
  let lastColumn = params.columns - 1u;
  let bStride = params.bStride / 4u;
  let b0 = min(column + 0u, lastColumn) * bStride;
  let b1 = min(column + 1u, lastColumn) * bStride;
  let b2 = min(column + 2u, lastColumn) * bStride;
  let b3 = min(column + 3u, lastColumn) * bStride;
  let b4 = min(column + 4u, lastColumn) * bStride;
  let b5 = min(column + 5u, lastColumn) * bStride;
  let b6 = min(column + 6u, lastColumn) * bStride;
  let b7 = min(column + 7u, lastColumn) * bStride;
  var l0 = vec4f(); var h0 = vec4f();
  var l1 = vec4f(); var h1 = vec4f();
  var l2 = vec4f(); var h2 = vec4f();
  var l3 = vec4f(); var h3 = vec4f();
  var l4 = vec4f(); var h4 = vec4f();
  var l5 = vec4f(); var h5 = vec4f();
  var l6 = vec4f(); var h6 = vec4f();
  var l7 = vec4f(); var h7 = vec4f();
  var l8 = vec4f(); var h8 = vec4f();
  var l9 = vec4f(); var h9 = vec4f();
  var l10 = vec4f(); var h10 = vec4f();
  var l11 = vec4f(); var h11 = vec4f();
  var l12 = vec4f(); var h12 = vec4f();
  var l13 = vec4f(); var h13 = vec4f();
  var l14 = vec4f(); var h14 = vec4f();
  var l15 = vec4f(); var h15 = vec4f();
  for (var k = 0u; k < inner; k++) {
    let low = mat4x4f(weight4(b0 + k), weight4(b1 + k), weight4(b2 + k), weight4(b3 + k));
    let high = mat4x4f(weight4(b4 + k), weight4(b5 + k), weight4(b6 + k), weight4(b7 + k));
    let x0 = a[a0 + k]; l0 += x0 * low; h0 += x0 * high;
    let x1 = a[a1 + k]; l1 += x1 * low; h1 += x1 * high;
    let x2 = a[a2 + k]; l2 += x2 * low; h2 += x2 * high;
    let x3 = a[a3 + k]; l3 += x3 * low; h3 += x3 * high;
    let x4 = a[a4 + k]; l4 += x4 * low; h4 += x4 * high;
    let x5 = a[a5 + k]; l5 += x5 * low; h5 += x5 * high;
    let x6 = a[a6 + k]; l6 += x6 * low; h6 += x6 * high;
    let x7 = a[a7 + k]; l7 += x7 * low; h7 += x7 * high;
    let x8 = a[a8 + k]; l8 += x8 * low; h8 += x8 * high;
    let x9 = a[a9 + k]; l9 += x9 * low; h9 += x9 * high;
    let x10 = a[a10 + k]; l10 += x10 * low; h10 += x10 * high;
    let x11 = a[a11 + k]; l11 += x11 * low; h11 += x11 * high;
    let x12 = a[a12 + k]; l12 += x12 * low; h12 += x12 * high;
    let x13 = a[a13 + k]; l13 += x13 * low; h13 += x13 * high;
    let x14 = a[a14 + k]; l14 += x14 * low; h14 += x14 * high;
    let x15 = a[a15 + k]; l15 += x15 * low; h15 += x15 * high;
  }
  // A loop, since every copy of `store` costs time to compile.
  var sums = array<vec4f, 32>(
    l0, h0,
    l1, h1,
    l2, h2,
    l3, h3,
    l4, h4,
    l5, h5,
    l6, h6,
    l7, h7,
    l8, h8,
    l9, h9,
    l10, h10,
    l11, h11,
    l12, h12,
    l13, h13,
    l14, h14,
    l15, h15,
  );
  for (var i = 0u; i < 16u; i++) {
    store(row + i, column, sums[2u * i], sums[2u * i + 1u]);
  }
}
