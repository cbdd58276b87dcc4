// out (+)= x · mask / (1 − rate). The mask is not stored: it is a hash of seed, salt and element, so that the backward pass
// and a recomputed forward pass find the same one. The hash is PCG's output permutation over a counter (Jarzynski and
// Olano 2020, "Hash Functions for GPU Rendering", pcg).

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

fn pcg(value: u32) -> u32 {
  let state = value * 747796405u + 2891336453u;
  let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
  return (word >> 22u) ^ word;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (wg.y * groups.x + wg.x) * 64u + local;
  let stride = groups.x * groups.y * 64u;
  let key = pcg(pcg(pcg(seed[0]) + seed[1]) + params.salt);
  for (var i = first; i < params.count; i += stride) {
    let kept = pcg(pcg(i) + key) >= params.threshold;
    let value = select(0.0, x[i] * params.scale, kept);
    if (params.accumulate != 0u) {
      out[i] += value;
    } else {
      out[i] = value;
    }
  }
}
