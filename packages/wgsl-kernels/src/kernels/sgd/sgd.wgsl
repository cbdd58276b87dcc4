// Stochastic gradient descent as torch.optim.SGD computes it: the gradient scaled down to a norm first, weight decay added to
// it (coupled: it takes part in momentum), dampening 0, no Nesterov. What changes from step to step lies in `hyper`, so that
// a recorded plan can be replayed. A step whose gradient is not finite changes nothing. Four vectors an invocation.

struct Params {
  count: u32,
}

struct Hyper {
  learningRate: f32,
  momentum: f32,
  weightDecay: f32,
  // 0 turns clipping off.
  maxNorm: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> parameter: array<Vector>;
@group(0) @binding(2) var<storage, read_write> gradient: array<Vector>;
@group(0) @binding(3) var<storage, read_write> hyper: Hyper;
@group(0) @binding(4) var<storage, read_write> norm: array<f32>;
@group(0) @binding(5) var<storage, read_write> velocity: array<Vector>;

fn clip() -> f32 {
  return select(1.0, min(1.0, hyper.maxNorm / (norm[0] + 1e-6)), hyper.maxNorm > 0.0);
}

fn plain_at(i: u32, clip: f32, decay: f32, rate: f32) {
  if (i < params.count) {
    let p = parameter[i];
    parameter[i] = p - rate * (gradient[i] * clip + decay * p);
  }
}

fn momentum_at(i: u32, clip: f32, decay: f32, rate: f32, momentum: f32) {
  if (i < params.count) {
    let p = parameter[i];
    let v = momentum * velocity[i] + (gradient[i] * clip + decay * p);
    velocity[i] = v;
    parameter[i] = p - rate * v;
  }
}

@compute @workgroup_size(64)
fn plain(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  if (norm[1] != 0.0) {
    return;
  }
  let scale = clip();
  let decay = hyper.weightDecay;
  let rate = hyper.learningRate;
  let place = (wg.y * groups.x + wg.x) * 256u + local * OWN;
  plain_at(place, scale, decay, rate);
  plain_at(place + STEP, scale, decay, rate);
  plain_at(place + 2u * STEP, scale, decay, rate);
  plain_at(place + 3u * STEP, scale, decay, rate);
}

@compute @workgroup_size(64)
fn with_momentum(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  if (norm[1] != 0.0) {
    return;
  }
  let scale = clip();
  let decay = hyper.weightDecay;
  let rate = hyper.learningRate;
  let momentum = hyper.momentum;
  let place = (wg.y * groups.x + wg.x) * 256u + local * OWN;
  momentum_at(place, scale, decay, rate, momentum);
  momentum_at(place + STEP, scale, decay, rate, momentum);
  momentum_at(place + 2u * STEP, scale, decay, rate, momentum);
  momentum_at(place + 3u * STEP, scale, decay, rate, momentum);
}
