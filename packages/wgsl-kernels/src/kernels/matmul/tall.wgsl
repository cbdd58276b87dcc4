// c = α·aᵀ·b (+ c) for a [K, M] and b [K, N] with K long and M·N small: the gradients of LoRA factors, summed over tokens.
// A workgroup owns four 8×8 tiles of c, eight invocations each. Every invocation sums a slice of K in registers; the slices
// are then added in a fixed order through workgroup memory, so that equal input gives equal bytes.

@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;

// Tiles of a workgroup, and slices of k of a tile.
const TILES = 4u;
const SLICES = 8u;

var<workgroup> partial: array<vec4f, 512>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let lane = local / SLICES;
  let slice = local % SLICES;
  let tile = (wg.y * groups.x + wg.x) * TILES + lane;
  let tileColumns = (params.columns + 7u) / 8u;
  let row = (tile / tileColumns) * 8u;
  let column = (tile % tileColumns) * 8u;
  let lastRow = params.rows - 1u;
  let lastColumn = params.columns - 1u;
  let r0 = min(row, lastRow);
  let r1 = min(row + 1u, lastRow);
  let r2 = min(row + 2u, lastRow);
  let r3 = min(row + 3u, lastRow);
  let r4 = min(row + 4u, lastRow);
  let r5 = min(row + 5u, lastRow);
  let r6 = min(row + 6u, lastRow);
  let r7 = min(row + 7u, lastRow);
  let c0 = min(column, lastColumn);
  let c1 = min(column + 1u, lastColumn);
  let c2 = min(column + 2u, lastColumn);
  let c3 = min(column + 3u, lastColumn);
  let c4 = min(column + 4u, lastColumn);
  let c5 = min(column + 5u, lastColumn);
  let c6 = min(column + 6u, lastColumn);
  let c7 = min(column + 7u, lastColumn);
  var l0 = vec4f(); var h0 = vec4f();
  var l1 = vec4f(); var h1 = vec4f();
  var l2 = vec4f(); var h2 = vec4f();
  var l3 = vec4f(); var h3 = vec4f();
  var l4 = vec4f(); var h4 = vec4f();
  var l5 = vec4f(); var h5 = vec4f();
  var l6 = vec4f(); var h6 = vec4f();
  var l7 = vec4f(); var h7 = vec4f();
  for (var k = slice; k < params.inner; k += SLICES) {
    let x = k * params.rows;
    let y = k * params.columns;
    let low = vec4f(b[y + c0], b[y + c1], b[y + c2], b[y + c3]);
    let high = vec4f(b[y + c4], b[y + c5], b[y + c6], b[y + c7]);
    let v0 = a[x + r0]; l0 = fma(vec4f(v0), low, l0); h0 = fma(vec4f(v0), high, h0);
    let v1 = a[x + r1]; l1 = fma(vec4f(v1), low, l1); h1 = fma(vec4f(v1), high, h1);
    let v2 = a[x + r2]; l2 = fma(vec4f(v2), low, l2); h2 = fma(vec4f(v2), high, h2);
    let v3 = a[x + r3]; l3 = fma(vec4f(v3), low, l3); h3 = fma(vec4f(v3), high, h3);
    let v4 = a[x + r4]; l4 = fma(vec4f(v4), low, l4); h4 = fma(vec4f(v4), high, h4);
    let v5 = a[x + r5]; l5 = fma(vec4f(v5), low, l5); h5 = fma(vec4f(v5), high, h5);
    let v6 = a[x + r6]; l6 = fma(vec4f(v6), low, l6); h6 = fma(vec4f(v6), high, h6);
    let v7 = a[x + r7]; l7 = fma(vec4f(v7), low, l7); h7 = fma(vec4f(v7), high, h7);
  }
  let own = local * 16u;
  partial[own] = l0; partial[own + 1u] = h0;
  partial[own + 2u] = l1; partial[own + 3u] = h1;
  partial[own + 4u] = l2; partial[own + 5u] = h2;
  partial[own + 6u] = l3; partial[own + 7u] = h3;
  partial[own + 8u] = l4; partial[own + 9u] = h4;
  partial[own + 10u] = l5; partial[own + 11u] = h5;
  partial[own + 12u] = l6; partial[own + 13u] = h6;
  partial[own + 14u] = l7; partial[own + 15u] = h7;
  workgroupBarrier();
  // Each invocation adds up two vec4 of its tile, always in the same order.
  for (var part = slice; part < 16u; part += SLICES) {
    var sum = vec4f();
    for (var other = 0u; other < SLICES; other++) {
      sum += partial[(lane * SLICES + other) * 16u + part];
    }
    let m = row + part / 2u;
    let n = column + (part % 2u) * 4u;
    if (m < params.rows) {
      for (var i = 0u; i < 4u; i++) {
        if (n + i < params.columns) {
          let at = m * params.columns + n + i;
          let value = params.alpha * sum[i];
          if (params.accumulate != 0u) {
            c[at] += value;
          } else {
            c[at] = value;
          }
        }
      }
    }
  }
}
