// Adds to the gradients of one pair of factors those of λ·‖B[:, kept:]‖·‖A[kept:, :]‖ (HetLoRA's rank self-pruning, Cho et al.
// 2024, §3.2). One workgroup does all of it, norms and then gradients: a tail is a few rows and columns, and a second dispatch
// for every matrix would cost more than it saves. Where a norm is 0 its own gradient is taken to be 0.

struct Params {
  // Elements of A before its tail, and of all of A [r, in].
  firstA: u32,
  endA: u32,
  // Columns of B [out, r] before its tail, all of them, and rows.
  kept: u32,
  rank: u32,
  rows: u32,
  lambda: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> da: array<f32>;
@group(0) @binding(4) var<storage, read_write> db: array<f32>;

var<workgroup> sums: array<vec2f, 256>;

// Of the i-th element of the tail of B, row by row.
fn place_in_b(i: u32) -> u32 {
  let tail = params.rank - params.kept;
  return (i / tail) * params.rank + params.kept + i % tail;
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) local: u32) {
  let count = params.rows * (params.rank - params.kept);
  var own = vec2f();
  for (var i = params.firstA + local; i < params.endA; i += 256u) {
    own.x = fma(a[i], a[i], own.x);
  }
  for (var i = local; i < count; i += 256u) {
    let value = b[place_in_b(i)];
    own.y = fma(value, value, own.y);
  }
  sums[local] = own;
  workgroupBarrier();
  // Every invocation adds all sums up in the same order: one barrier, and the same result everywhere.
  var total = vec2f();
  for (var i = 0u; i < 256u; i++) {
    total += sums[i];
  }
  let norms = sqrt(total);
  let toA = select(0.0, params.lambda * norms.y / norms.x, norms.x > 0.0);
  let toB = select(0.0, params.lambda * norms.x / norms.y, norms.y > 0.0);
  for (var i = params.firstA + local; i < params.endA; i += 256u) {
    da[i] = fma(toA, a[i], da[i]);
  }
  for (var i = local; i < count; i += 256u) {
    let place = place_in_b(i);
    db[place] = fma(toB, b[place], db[place]);
  }
}
