// AdamW (Loshchilov and Hutter 2019) as PyTorch computes it, with the gradient scaled down to a norm first. What changes
// from step to step lies in `hyper`, so that a recorded plan can be replayed. A step whose gradient is not finite changes
// nothing; the flag beside the norm tells.

struct Params {
  count: u32,
}

struct Hyper {
  learningRate: f32,
  beta1: f32,
  beta2: f32,
  eps: f32,
  weightDecay: f32,
  // 1 / (1 − β₁ᵗ) and 1 / (1 − β₂ᵗ)
  correction1: f32,
  correction2: f32,
  // 0 turns clipping off.
  maxNorm: f32,
  // 1 − β₁ and 1 − β₂, rounded once: the difference in float32 would lose five digits.
  rest1: f32,
  rest2: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> parameter: array<f32>;
@group(0) @binding(2) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(3) var<storage, read_write> first: array<f32>;
@group(0) @binding(4) var<storage, read_write> second: array<f32>;
@group(0) @binding(5) var<storage, read_write> hyper: Hyper;
@group(0) @binding(6) var<storage, read_write> norm: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  if (norm[1] != 0.0) {
    return;
  }
  var clip = 1.0;
  if (hyper.maxNorm > 0.0) {
    clip = min(1.0, hyper.maxNorm / (norm[0] + 1e-6));
  }
  let stride = groups.x * groups.y * 64u;
  for (var i = (wg.y * groups.x + wg.x) * 64u + local; i < params.count; i += stride) {
    let g = gradient[i] * clip;
    let m = fma(hyper.beta1, first[i], hyper.rest1 * g);
    let v = fma(hyper.beta2, second[i], hyper.rest2 * g * g);
    first[i] = m;
    second[i] = v;
    let decayed = parameter[i] * (1.0 - hyper.learningRate * hyper.weightDecay);
    parameter[i] = decayed - hyper.learningRate * m * hyper.correction1 / (sqrt(v * hyper.correction2) + hyper.eps);
  }
}
