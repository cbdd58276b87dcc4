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

var<workgroup> partial: array<f32, 64>;

fn reduce(local: u32, value: f32, greatest: bool) -> f32 {
  partial[local] = value;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half /= 2u) {
    if (local < half) {
      let other = partial[local + half];
      partial[local] = select(partial[local] + other, max(partial[local], other), greatest);
    }
    workgroupBarrier();
  }
  let result = partial[0];
  workgroupBarrier();
  return result;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = wg.y * groups.x + wg.x;
  let base = min(row, params.rows - 1u) * params.vocabulary;
  let label = labels[min(row, params.rows - 1u)];
  var highest = -1e30;
  for (var i = local; i < params.vocabulary; i += 64u) {
    highest = max(highest, logits[base + i]);
  }
  highest = reduce(local, highest, true);
  var total = 0.0;
  for (var i = local; i < params.vocabulary; i += 64u) {
    total += exp(logits[base + i] - highest);
  }
  total = reduce(local, total, false);
  let counts = label >= 0;
  if (local == 0u && row < params.rows) {
    let target_logit = logits[base + u32(max(label, 0))];
    loss[row] = select(0.0, highest + log(total) - target_logit, counts);
  }
  // The target's logit is read before anyone overwrites it.
  storageBarrier();
  workgroupBarrier();
  if (params.gradient == 0u || row >= params.rows) {
    return;
  }
  let factor = select(0.0, normaliser[0], counts);
  for (var i = local; i < params.vocabulary; i += 64u) {
    let probability = exp(logits[base + i] - highest) / total;
    logits[base + i] = factor * select(probability, probability - 1.0, i32(i) == label);
  }
}
