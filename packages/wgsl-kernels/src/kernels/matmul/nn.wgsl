// c = α·a·b (+ c) for a [M, K] and b [K, N] with K and N multiples of four: four steps of k at a time, eight columns of b as
// two vec4, and 8×8 sums in registers. Rows beyond the edge are clamped for reading and skipped for writing.

struct Params {
  rows: u32,
  columns: u32,
  inner: u32,
  accumulate: u32,
  alpha: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> a: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> b: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> c: array<vec4f>;

fn store(row: u32, column: u32, value: vec4f) {
  let width = params.columns / 4u;
  if (row < params.rows && column < width) {
    let at = row * width + column;
    if (params.accumulate != 0u) {
      c[at] += params.alpha * value;
    } else {
      c[at] = params.alpha * value;
    }
  }
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let tile = (wg.y * groups.x + wg.x) * 32u + local;
  let width = params.columns / 4u;
  let tileColumns = (width + 1u) / 2u;
  let row = (tile / tileColumns) * 8u;
  let column = (tile % tileColumns) * 2u;
  if (row >= params.rows) {
    return;
  }
  let inner = params.inner / 4u;
  let second = min(column + 1u, width - 1u);
  let a0 = min(row + 0u, params.rows - 1u) * inner;
  let a1 = min(row + 1u, params.rows - 1u) * inner;
  let a2 = min(row + 2u, params.rows - 1u) * inner;
  let a3 = min(row + 3u, params.rows - 1u) * inner;
  let a4 = min(row + 4u, params.rows - 1u) * inner;
  let a5 = min(row + 5u, params.rows - 1u) * inner;
  let a6 = min(row + 6u, params.rows - 1u) * inner;
  let a7 = min(row + 7u, params.rows - 1u) * inner;
  var l0 = vec4f(); var h0 = vec4f();
  var l1 = vec4f(); var h1 = vec4f();
  var l2 = vec4f(); var h2 = vec4f();
  var l3 = vec4f(); var h3 = vec4f();
  var l4 = vec4f(); var h4 = vec4f();
  var l5 = vec4f(); var h5 = vec4f();
  var l6 = vec4f(); var h6 = vec4f();
  var l7 = vec4f(); var h7 = vec4f();
  for (var k = 0u; k < inner; k++) {
    let at = k * 4u * width;
    let p0 = b[at + 0u * width + column]; let q0 = b[at + 0u * width + second];
    let p1 = b[at + 1u * width + column]; let q1 = b[at + 1u * width + second];
    let p2 = b[at + 2u * width + column]; let q2 = b[at + 2u * width + second];
    let p3 = b[at + 3u * width + column]; let q3 = b[at + 3u * width + second];
    let x0 = a[a0 + k];
    l0 = fma(vec4f(x0.x), p0, fma(vec4f(x0.y), p1, fma(vec4f(x0.z), p2, fma(vec4f(x0.w), p3, l0))));
    h0 = fma(vec4f(x0.x), q0, fma(vec4f(x0.y), q1, fma(vec4f(x0.z), q2, fma(vec4f(x0.w), q3, h0))));
    let x1 = a[a1 + k];
    l1 = fma(vec4f(x1.x), p0, fma(vec4f(x1.y), p1, fma(vec4f(x1.z), p2, fma(vec4f(x1.w), p3, l1))));
    h1 = fma(vec4f(x1.x), q0, fma(vec4f(x1.y), q1, fma(vec4f(x1.z), q2, fma(vec4f(x1.w), q3, h1))));
    let x2 = a[a2 + k];
    l2 = fma(vec4f(x2.x), p0, fma(vec4f(x2.y), p1, fma(vec4f(x2.z), p2, fma(vec4f(x2.w), p3, l2))));
    h2 = fma(vec4f(x2.x), q0, fma(vec4f(x2.y), q1, fma(vec4f(x2.z), q2, fma(vec4f(x2.w), q3, h2))));
    let x3 = a[a3 + k];
    l3 = fma(vec4f(x3.x), p0, fma(vec4f(x3.y), p1, fma(vec4f(x3.z), p2, fma(vec4f(x3.w), p3, l3))));
    h3 = fma(vec4f(x3.x), q0, fma(vec4f(x3.y), q1, fma(vec4f(x3.z), q2, fma(vec4f(x3.w), q3, h3))));
    let x4 = a[a4 + k];
    l4 = fma(vec4f(x4.x), p0, fma(vec4f(x4.y), p1, fma(vec4f(x4.z), p2, fma(vec4f(x4.w), p3, l4))));
    h4 = fma(vec4f(x4.x), q0, fma(vec4f(x4.y), q1, fma(vec4f(x4.z), q2, fma(vec4f(x4.w), q3, h4))));
    let x5 = a[a5 + k];
    l5 = fma(vec4f(x5.x), p0, fma(vec4f(x5.y), p1, fma(vec4f(x5.z), p2, fma(vec4f(x5.w), p3, l5))));
    h5 = fma(vec4f(x5.x), q0, fma(vec4f(x5.y), q1, fma(vec4f(x5.z), q2, fma(vec4f(x5.w), q3, h5))));
    let x6 = a[a6 + k];
    l6 = fma(vec4f(x6.x), p0, fma(vec4f(x6.y), p1, fma(vec4f(x6.z), p2, fma(vec4f(x6.w), p3, l6))));
    h6 = fma(vec4f(x6.x), q0, fma(vec4f(x6.y), q1, fma(vec4f(x6.z), q2, fma(vec4f(x6.w), q3, h6))));
    let x7 = a[a7 + k];
    l7 = fma(vec4f(x7.x), p0, fma(vec4f(x7.y), p1, fma(vec4f(x7.z), p2, fma(vec4f(x7.w), p3, l7))));
    h7 = fma(vec4f(x7.x), q0, fma(vec4f(x7.y), q1, fma(vec4f(x7.z), q2, fma(vec4f(x7.w), q3, h7))));
  }
  store(row + 0u, column, l0); store(row + 0u, column + 1u, h0);
  store(row + 1u, column, l1); store(row + 1u, column + 1u, h1);
  store(row + 2u, column, l2); store(row + 2u, column + 1u, h2);
  store(row + 3u, column, l3); store(row + 3u, column + 1u, h3);
  store(row + 4u, column, l4); store(row + 4u, column + 1u, h4);
  store(row + 5u, column, l5); store(row + 5u, column + 1u, h5);
  store(row + 6u, column, l6); store(row + 6u, column + 1u, h6);
  store(row + 7u, column, l7); store(row + 7u, column + 1u, h7);
}
