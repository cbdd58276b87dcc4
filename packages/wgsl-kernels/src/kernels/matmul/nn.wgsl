// c = α·a·b (+ c) for a [M, K] and b [K, N] with K and N multiples of four. An invocation keeps 16×8 sums in registers and takes
// four steps of k at a time: mat4x4f(p0, p1, p2, p3) · x is four rows of b weighted by x. The tile is tall because software
// adapters pay per load. Rows beyond the edge are clamped for reading and skipped by `store`. This text is completed by
// params.wgsl, by a weight-*.wgsl that reads b, and by store.wgsl.

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
  // In vectors of four: b's rows, and the two vectors of this tile in them.
  let width = params.bStride / 4u;
  let first = column / 4u;
  let second = min(first + 1u, params.columns / 4u - 1u);
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
    let at = k * params.bStride;
    let low = mat4x4f(weight4(at + first), weight4(at + width + first), weight4(at + 2u * width + first), weight4(at + 3u * width + first));
    let high = mat4x4f(weight4(at + second), weight4(at + width + second), weight4(at + 2u * width + second), weight4(at + 3u * width + second));
    let x0 = a[a0 + k]; l0 += low * x0; h0 += high * x0;
    let x1 = a[a1 + k]; l1 += low * x1; h1 += high * x1;
    let x2 = a[a2 + k]; l2 += low * x2; h2 += high * x2;
    let x3 = a[a3 + k]; l3 += low * x3; h3 += high * x3;
    let x4 = a[a4 + k]; l4 += low * x4; h4 += high * x4;
    let x5 = a[a5 + k]; l5 += low * x5; h5 += high * x5;
    let x6 = a[a6 + k]; l6 += low * x6; h6 += high * x6;
    let x7 = a[a7 + k]; l7 += low * x7; h7 += high * x7;
    let x8 = a[a8 + k]; l8 += low * x8; h8 += high * x8;
    let x9 = a[a9 + k]; l9 += low * x9; h9 += high * x9;
    let x10 = a[a10 + k]; l10 += low * x10; h10 += high * x10;
    let x11 = a[a11 + k]; l11 += low * x11; h11 += high * x11;
    let x12 = a[a12 + k]; l12 += low * x12; h12 += high * x12;
    let x13 = a[a13 + k]; l13 += low * x13; h13 += high * x13;
    let x14 = a[a14 + k]; l14 += low * x14; h14 += high * x14;
    let x15 = a[a15 + k]; l15 += low * x15; h15 += high * x15;
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
