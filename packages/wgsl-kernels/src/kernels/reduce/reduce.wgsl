// Sums in a fixed order: 64 running sums a workgroup, added as a tree. `sum_squares` also raises a flag when an element is
// NaN or infinite, found by bit pattern because shaders may assume that neither occurs. Two stages where one workgroup
// would take too long.

struct Params {
  count: u32,
  groups: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

var<workgroup> sums: array<f32, 64>;
var<workgroup> flags: array<u32, 64>;

fn tree(local: u32, sum: f32, flag: u32) {
  sums[local] = sum;
  flags[local] = flag;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half /= 2u) {
    if (local < half) {
      sums[local] += sums[local + half];
      flags[local] |= flags[local + half];
    }
    workgroupBarrier();
  }
}

fn is_finite(value: f32) -> bool {
  return (bitcast<u32>(value) & 0x7f800000u) != 0x7f800000u;
}

// out[0] (+)= Σ x
@compute @workgroup_size(64)
fn sum(@builtin(local_invocation_index) local: u32) {
  var total = 0.0;
  for (var i = local; i < params.count; i += 64u) {
    total += x[i];
  }
  tree(local, total, 0u);
  if (local == 0u) {
    out[0] = sums[0] + select(0.0, out[0], params.accumulate != 0u);
  }
}

// out[2g] = Σ x² over the workgroup's share, out[2g + 1] = 1 when one of them is not finite
@compute @workgroup_size(64)
fn sum_squares(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  var total = 0.0;
  var flag = 0u;
  for (var i = wg.x * 64u + local; i < params.count; i += params.groups * 64u) {
    total = fma(x[i], x[i], total);
    flag |= select(1u, 0u, is_finite(x[i]));
  }
  tree(local, total, flag);
  if (local == 0u) {
    out[2u * wg.x] = sums[0];
    out[2u * wg.x + 1u] = f32(flags[0]);
  }
}

// out[0] = √ of the partial sums in x, out[1] = whether any flag is raised or the sum itself overflowed
@compute @workgroup_size(64)
fn norm(@builtin(local_invocation_index) local: u32) {
  var total = 0.0;
  var flag = 0u;
  for (var i = local; i < params.groups; i += 64u) {
    total += x[2u * i];
    flag |= u32(x[2u * i + 1u]);
  }
  tree(local, total, flag);
  if (local == 0u) {
    out[0] = sqrt(sums[0]);
    out[1] = f32(flags[0] | select(1u, 0u, is_finite(sums[0])));
  }
}
