// Cross-entropy of a row of logits, and its gradient written over the logits: (softmax − onehot) · normaliser. A row a
// workgroup. Rows labelled −100 count nothing: their loss and their gradient are exactly 0.

struct Params {
  rows: u32,
  vocabulary: u32,
  gradient: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> labels: array<i32>;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;
@group(0) @binding(4) var<storage, read_write> normaliser: array<f32>;

const LANES = 32u;

// Running maximum and sum of exponentials of each invocation, and of the whole row at [LANES].
var<workgroup> partial: array<vec2f, 33>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = wg.y * groups.x + wg.x;
  let base = min(row, params.rows - 1u) * params.vocabulary;
  let label = labels[min(row, params.rows - 1u)];
  // A finite stand-in for −∞: shaders may assume that infinities never occur.
  var highest = -1e30;
  for (var i = local; i < params.vocabulary; i += LANES) {
    highest = max(highest, logits[base + i]);
  }
  var total = 0.0;
  for (var i = local; i < params.vocabulary; i += LANES) {
    total += exp(logits[base + i] - highest);
  }
  partial[local] = vec2f(highest, total);
  workgroupBarrier();
  if (local == 0u) {
    var whole = partial[0];
    for (var i = 1u; i < LANES; i++) {
      let other = partial[i];
      let greatest = max(whole.x, other.x);
      whole = vec2f(greatest, whole.y * exp(whole.x - greatest) + other.y * exp(other.x - greatest));
    }
    partial[LANES] = whole;
    if (row < params.rows) {
      // The target's logit is read here, before anyone overwrites it.
      let target_logit = logits[base + u32(max(label, 0))];
      loss[row] = select(0.0, whole.x + log(whole.y) - target_logit, label >= 0);
    }
  }
  storageBarrier();
  workgroupBarrier();
  if (params.gradient == 0u || row >= params.rows) {
    return;
  }
  let whole = partial[LANES];
  let factor = select(0.0, normaliser[0], label >= 0);
  for (var i = local; i < params.vocabulary; i += LANES) {
    let probability = exp(logits[base + i] - whole.x) / whole.y;
    logits[base + i] = factor * select(probability, probability - 1.0, i32(i) == label);
  }
}
