// AdamW (Loshchilov and Hutter 2019) as PyTorch computes it, with the gradient scaled down to a norm first. What changes
// from step to step lies in `hyper`, so that a recorded plan can be replayed. A step whose gradient is not finite changes
// nothing; the flag beside the norm tells. Four vectors an invocation.

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
@group(0) @binding(1) var<storage, read_write> parameter: array<Vector>;
@group(0) @binding(2) var<storage, read_write> gradient: array<Vector>;
@group(0) @binding(3) var<storage, read_write> first: array<Vector>;
@group(0) @binding(4) var<storage, read_write> second: array<Vector>;
@group(0) @binding(5) var<storage, read_write> hyper: Hyper;
@group(0) @binding(6) var<storage, read_write> norm: array<f32>;

// What all elements share, computed once by every invocation.
struct Step {
  clip: f32,
  beta1: f32,
  beta2: f32,
  rest1: f32,
  rest2: f32,
  rate: f32,
  correction2: f32,
  eps: f32,
  keep: f32,
}

fn step_at(i: u32, step: Step) {
  if (i < params.count) {
    let g = gradient[i] * step.clip;
    let m = step.beta1 * first[i] + step.rest1 * g;
    let v = step.beta2 * second[i] + step.rest2 * g * g;
    first[i] = m;
    second[i] = v;
    parameter[i] = parameter[i] * step.keep - step.rate * m / (sqrt(v * step.correction2) + step.eps);
  }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  if (norm[1] != 0.0) {
    return;
  }
  var step: Step;
  step.clip = select(1.0, min(1.0, hyper.maxNorm / (norm[0] + 1e-6)), hyper.maxNorm > 0.0);
  step.beta1 = hyper.beta1;
  step.beta2 = hyper.beta2;
  step.rest1 = hyper.rest1;
  step.rest2 = hyper.rest2;
  step.rate = hyper.learningRate * hyper.correction1;
  step.correction2 = hyper.correction2;
  step.eps = hyper.eps;
  step.keep = 1.0 - hyper.learningRate * hyper.weightDecay;
  let place = (wg.y * groups.x + wg.x) * 256u + local * OWN;
  step_at(place, step);
  step_at(place + STEP, step);
  step_at(place + 2u * STEP, step);
  step_at(place + 3u * STEP, step);
}
