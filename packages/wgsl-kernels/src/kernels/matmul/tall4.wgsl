// c = α·aᵀ·b (+ c) as in tall.wgsl, for M and N that are multiples of four: a row of the tile of a and of b is two vec4.

@group(0) @binding(1) var<storage, read_write> a: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> b: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> c: array<vec4f>;

// Tiles of a workgroup, and slices of k of a tile.
const TILES = 4u;
const SLICES = 8u;

var<workgroup> partial: array<vec4f, 512>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let lane = local / SLICES;
  let slice = local % SLICES;
  let tile = (wg.y * groups.x + wg.x) * TILES + lane;
  let width = params.columns / 4u;
  let height = params.rows / 4u;
  let tileColumns = (width + 1u) / 2u;
  let row = (tile / tileColumns) * 2u;
  let column = (tile % tileColumns) * 2u;
  let row0 = min(row, height - 1u);
  let row1 = min(row + 1u, height - 1u);
  let column1 = min(column + 1u, width - 1u);
  var l0 = vec4f(); var h0 = vec4f();
  var l1 = vec4f(); var h1 = vec4f();
  var l2 = vec4f(); var h2 = vec4f();
  var l3 = vec4f(); var h3 = vec4f();
  var l4 = vec4f(); var h4 = vec4f();
  var l5 = vec4f(); var h5 = vec4f();
  var l6 = vec4f(); var h6 = vec4f();
  var l7 = vec4f(); var h7 = vec4f();
  for (var k = slice; k < params.inner; k += SLICES) {
    let x0 = a[k * height + row0];
    let x1 = a[k * height + row1];
    let low = b[k * width + column];
    let high = b[k * width + column1];
    l0 = fma(vec4f(x0.x), low, l0); h0 = fma(vec4f(x0.x), high, h0);
    l1 = fma(vec4f(x0.y), low, l1); h1 = fma(vec4f(x0.y), high, h1);
    l2 = fma(vec4f(x0.z), low, l2); h2 = fma(vec4f(x0.z), high, h2);
    l3 = fma(vec4f(x0.w), low, l3); h3 = fma(vec4f(x0.w), high, h3);
    l4 = fma(vec4f(x1.x), low, l4); h4 = fma(vec4f(x1.x), high, h4);
    l5 = fma(vec4f(x1.y), low, l5); h5 = fma(vec4f(x1.y), high, h5);
    l6 = fma(vec4f(x1.z), low, l6); h6 = fma(vec4f(x1.z), high, h6);
    l7 = fma(vec4f(x1.w), low, l7); h7 = fma(vec4f(x1.w), high, h7);
  }
  let own = local * 16u;
  partial[own + 0u] = l0; partial[own + 1u] = h0;
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
    let m = row * 4u + part / 2u;
    let n = column + part % 2u;
    if (m < params.rows && n < width) {
      let at = m * width + n;
      if (params.accumulate != 0u) {
        c[at] += params.alpha * sum;
      } else {
        c[at] = params.alpha * sum;
      }
    }
  }
}
