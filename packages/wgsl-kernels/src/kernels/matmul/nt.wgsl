// c = α·a·bᵀ (+ c) for rows that are multiples of four long: both a [M, K] and b [N, K] are read as vec4 along k, and each
// invocation keeps 8×8 dot products in registers. Software adapters pay per load, and GPUs per instruction: both gain.
// Indices beyond the edge are clamped for reading and skipped for writing.

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
@group(0) @binding(3) var<storage, read_write> c: array<f32>;

fn store(row: u32, column: u32, value: f32) {
  if (row < params.rows && column < params.columns) {
    let at = row * params.columns + column;
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
  let tileColumns = (params.columns + 7u) / 8u;
  let row = (tile / tileColumns) * 8u;
  let column = (tile % tileColumns) * 8u;
  if (row >= params.rows) {
    return;
  }
  let inner = params.inner / 4u;
  let a0 = min(row + 0u, params.rows - 1u) * inner;
  let a1 = min(row + 1u, params.rows - 1u) * inner;
  let a2 = min(row + 2u, params.rows - 1u) * inner;
  let a3 = min(row + 3u, params.rows - 1u) * inner;
  let a4 = min(row + 4u, params.rows - 1u) * inner;
  let a5 = min(row + 5u, params.rows - 1u) * inner;
  let a6 = min(row + 6u, params.rows - 1u) * inner;
  let a7 = min(row + 7u, params.rows - 1u) * inner;
  let b0 = min(column + 0u, params.columns - 1u) * inner;
  let b1 = min(column + 1u, params.columns - 1u) * inner;
  let b2 = min(column + 2u, params.columns - 1u) * inner;
  let b3 = min(column + 3u, params.columns - 1u) * inner;
  let b4 = min(column + 4u, params.columns - 1u) * inner;
  let b5 = min(column + 5u, params.columns - 1u) * inner;
  let b6 = min(column + 6u, params.columns - 1u) * inner;
  let b7 = min(column + 7u, params.columns - 1u) * inner;
  var s00 = 0.0; var s01 = 0.0; var s02 = 0.0; var s03 = 0.0; var s04 = 0.0; var s05 = 0.0; var s06 = 0.0; var s07 = 0.0;
  var s10 = 0.0; var s11 = 0.0; var s12 = 0.0; var s13 = 0.0; var s14 = 0.0; var s15 = 0.0; var s16 = 0.0; var s17 = 0.0;
  var s20 = 0.0; var s21 = 0.0; var s22 = 0.0; var s23 = 0.0; var s24 = 0.0; var s25 = 0.0; var s26 = 0.0; var s27 = 0.0;
  var s30 = 0.0; var s31 = 0.0; var s32 = 0.0; var s33 = 0.0; var s34 = 0.0; var s35 = 0.0; var s36 = 0.0; var s37 = 0.0;
  var s40 = 0.0; var s41 = 0.0; var s42 = 0.0; var s43 = 0.0; var s44 = 0.0; var s45 = 0.0; var s46 = 0.0; var s47 = 0.0;
  var s50 = 0.0; var s51 = 0.0; var s52 = 0.0; var s53 = 0.0; var s54 = 0.0; var s55 = 0.0; var s56 = 0.0; var s57 = 0.0;
  var s60 = 0.0; var s61 = 0.0; var s62 = 0.0; var s63 = 0.0; var s64 = 0.0; var s65 = 0.0; var s66 = 0.0; var s67 = 0.0;
  var s70 = 0.0; var s71 = 0.0; var s72 = 0.0; var s73 = 0.0; var s74 = 0.0; var s75 = 0.0; var s76 = 0.0; var s77 = 0.0;
  for (var k = 0u; k < inner; k++) {
    let y0 = b[b0 + k];
    let y1 = b[b1 + k];
    let y2 = b[b2 + k];
    let y3 = b[b3 + k];
    let y4 = b[b4 + k];
    let y5 = b[b5 + k];
    let y6 = b[b6 + k];
    let y7 = b[b7 + k];
    let x0 = a[a0 + k];
    s00 += dot(x0, y0); s01 += dot(x0, y1); s02 += dot(x0, y2); s03 += dot(x0, y3);
    s04 += dot(x0, y4); s05 += dot(x0, y5); s06 += dot(x0, y6); s07 += dot(x0, y7);
    let x1 = a[a1 + k];
    s10 += dot(x1, y0); s11 += dot(x1, y1); s12 += dot(x1, y2); s13 += dot(x1, y3);
    s14 += dot(x1, y4); s15 += dot(x1, y5); s16 += dot(x1, y6); s17 += dot(x1, y7);
    let x2 = a[a2 + k];
    s20 += dot(x2, y0); s21 += dot(x2, y1); s22 += dot(x2, y2); s23 += dot(x2, y3);
    s24 += dot(x2, y4); s25 += dot(x2, y5); s26 += dot(x2, y6); s27 += dot(x2, y7);
    let x3 = a[a3 + k];
    s30 += dot(x3, y0); s31 += dot(x3, y1); s32 += dot(x3, y2); s33 += dot(x3, y3);
    s34 += dot(x3, y4); s35 += dot(x3, y5); s36 += dot(x3, y6); s37 += dot(x3, y7);
    let x4 = a[a4 + k];
    s40 += dot(x4, y0); s41 += dot(x4, y1); s42 += dot(x4, y2); s43 += dot(x4, y3);
    s44 += dot(x4, y4); s45 += dot(x4, y5); s46 += dot(x4, y6); s47 += dot(x4, y7);
    let x5 = a[a5 + k];
    s50 += dot(x5, y0); s51 += dot(x5, y1); s52 += dot(x5, y2); s53 += dot(x5, y3);
    s54 += dot(x5, y4); s55 += dot(x5, y5); s56 += dot(x5, y6); s57 += dot(x5, y7);
    let x6 = a[a6 + k];
    s60 += dot(x6, y0); s61 += dot(x6, y1); s62 += dot(x6, y2); s63 += dot(x6, y3);
    s64 += dot(x6, y4); s65 += dot(x6, y5); s66 += dot(x6, y6); s67 += dot(x6, y7);
    let x7 = a[a7 + k];
    s70 += dot(x7, y0); s71 += dot(x7, y1); s72 += dot(x7, y2); s73 += dot(x7, y3);
    s74 += dot(x7, y4); s75 += dot(x7, y5); s76 += dot(x7, y6); s77 += dot(x7, y7);
  }
  store(row + 0u, column + 0u, s00); store(row + 0u, column + 1u, s01); store(row + 0u, column + 2u, s02); store(row + 0u, column + 3u, s03);
  store(row + 0u, column + 4u, s04); store(row + 0u, column + 5u, s05); store(row + 0u, column + 6u, s06); store(row + 0u, column + 7u, s07);
  store(row + 1u, column + 0u, s10); store(row + 1u, column + 1u, s11); store(row + 1u, column + 2u, s12); store(row + 1u, column + 3u, s13);
  store(row + 1u, column + 4u, s14); store(row + 1u, column + 5u, s15); store(row + 1u, column + 6u, s16); store(row + 1u, column + 7u, s17);
  store(row + 2u, column + 0u, s20); store(row + 2u, column + 1u, s21); store(row + 2u, column + 2u, s22); store(row + 2u, column + 3u, s23);
  store(row + 2u, column + 4u, s24); store(row + 2u, column + 5u, s25); store(row + 2u, column + 6u, s26); store(row + 2u, column + 7u, s27);
  store(row + 3u, column + 0u, s30); store(row + 3u, column + 1u, s31); store(row + 3u, column + 2u, s32); store(row + 3u, column + 3u, s33);
  store(row + 3u, column + 4u, s34); store(row + 3u, column + 5u, s35); store(row + 3u, column + 6u, s36); store(row + 3u, column + 7u, s37);
  store(row + 4u, column + 0u, s40); store(row + 4u, column + 1u, s41); store(row + 4u, column + 2u, s42); store(row + 4u, column + 3u, s43);
  store(row + 4u, column + 4u, s44); store(row + 4u, column + 5u, s45); store(row + 4u, column + 6u, s46); store(row + 4u, column + 7u, s47);
  store(row + 5u, column + 0u, s50); store(row + 5u, column + 1u, s51); store(row + 5u, column + 2u, s52); store(row + 5u, column + 3u, s53);
  store(row + 5u, column + 4u, s54); store(row + 5u, column + 5u, s55); store(row + 5u, column + 6u, s56); store(row + 5u, column + 7u, s57);
  store(row + 6u, column + 0u, s60); store(row + 6u, column + 1u, s61); store(row + 6u, column + 2u, s62); store(row + 6u, column + 3u, s63);
  store(row + 6u, column + 4u, s64); store(row + 6u, column + 5u, s65); store(row + 6u, column + 6u, s66); store(row + 6u, column + 7u, s67);
  store(row + 7u, column + 0u, s70); store(row + 7u, column + 1u, s71); store(row + 7u, column + 2u, s72); store(row + 7u, column + 3u, s73);
  store(row + 7u, column + 4u, s74); store(row + 7u, column + 5u, s75); store(row + 7u, column + 6u, s76); store(row + 7u, column + 7u, s77);
}
