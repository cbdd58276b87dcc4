// Sums in a fixed order. `sum_squares` also raises a flag when an element is NaN or infinite, found by bit pattern because
// shaders may assume that neither occurs. The norm of large tensors takes two stages: every invocation of the first writes a
// sum of its own, without waiting for any other, and one workgroup adds these up.

struct Params {
  // Vectors for sum_squares, elements for sum, partial sums for norm.
  count: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<storage, read_write> gradient: array<Vector>;

var<workgroup> sums: array<vec2f, 64>;

// Σ over the workgroup, for its first invocation: one barrier, since software adapters pay dearly for barriers.
fn total_of(local: u32, value: vec2f) -> vec2f {
  sums[local] = value;
  workgroupBarrier();
  var total = vec2f();
  if (local == 0u) {
    for (var i = 0u; i < 64u; i++) {
      total += sums[i];
    }
  }
  return total;
}

const INFINITE = 0x7f800000u;

fn is_finite(value: f32) -> bool {
  return (bitcast<u32>(value) & INFINITE) != INFINITE;
}

// out[0] (+)= Σ x
@compute @workgroup_size(64)
fn sum(@builtin(local_invocation_index) local: u32) {
  var total = 0.0;
  for (var i = local; i < params.count; i += 64u) {
    total += x[i];
  }
  let all = total_of(local, vec2f(total, 0.0)).x;
  if (local == 0u) {
    out[0] = all + select(0.0, out[0], params.accumulate != 0u);
  }
}

// out[2p] = Σ gradient² over the share of the p-th invocation, out[2p + 1] = 1 when something of it is not finite
@compute @workgroup_size(64)
fn sum_squares(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let stride = groups.x * 64u;
  let place = wg.x * 64u + local;
  var total = Vector();
  // Without their signs, the bits of numbers are in the order of their magnitudes; those of NaN are the highest.
  var highest = Bits();
  var i = place;
  for (; i + 3u * stride < params.count; i += 4u * stride) {
    let a = gradient[i];
    let b = gradient[i + stride];
    let c = gradient[i + 2u * stride];
    let d = gradient[i + 3u * stride];
    total = fma(a, a, fma(b, b, fma(c, c, fma(d, d, total))));
    highest = max(highest, max(max(magnitude(a), magnitude(b)), max(magnitude(c), magnitude(d))));
  }
  for (; i < params.count; i += stride) {
    let a = gradient[i];
    total = fma(a, a, total);
    highest = max(highest, magnitude(a));
  }
  out[2u * place] = sum_of(total);
  out[2u * place + 1u] = select(0.0, 1.0, highest_bits(highest) >= INFINITE);
}

fn magnitude(v: Vector) -> Bits {
  return bitcast<Bits>(v) & Bits(0x7fffffffu);
}

// out[0] = √ of the partial sums in x, out[1] = whether any flag is raised or the sum itself overflowed
@compute @workgroup_size(64)
fn norm(@builtin(local_invocation_index) local: u32) {
  var total = vec2f();
  for (var i = local; i < params.count; i += 64u) {
    total += vec2f(x[2u * i], x[2u * i + 1u]);
  }
  let all = total_of(local, total);
  if (local == 0u) {
    out[0] = sqrt(all.x);
    out[1] = select(1.0, 0.0, all.y == 0.0 && is_finite(all.x));
  }
}
