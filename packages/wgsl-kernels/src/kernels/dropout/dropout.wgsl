// out (+)= x · mask / (1 − rate). The mask is not stored: it is a hash of seed, salt and element, so that the backward pass
// and a recomputed forward pass find the same one. The hash is pcg4d (Jarzynski and Olano, "Hash Functions for GPU
// Rendering", JCGT 9(3), 2020), which mixes all four words, so that no two places or steps share a mask.

struct Params {
  count: u32,
  salt: u32,
  accumulate: u32,
  // An element is dropped when its 32 bits are below this: rate · 2³².
  threshold: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> seed: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

// The first of pcg4d's four words.
fn hash(words: vec4u) -> u32 {
  var v = words * 1664525u + 1013904223u;
  v.x += v.y * v.w;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v.w += v.y * v.z;
  v ^= v >> vec4u(16u);
  return v.x + v.y * v.w;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (wg.y * groups.x + wg.x) * 64u + local;
  let stride = groups.x * groups.y * 64u;
  for (var i = first; i < params.count; i += stride) {
    let kept = hash(vec4u(i, params.salt, seed[0], seed[1])) >= params.threshold;
    let value = select(0.0, x[i] * params.scale, kept);
    if (params.accumulate != 0u) {
      out[i] += value;
    } else {
      out[i] = value;
    }
  }
}
