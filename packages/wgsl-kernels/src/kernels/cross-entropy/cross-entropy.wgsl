// Cross-entropy of a row of logits, and its gradient written over the logits: (softmax − onehot) · normaliser. One pass finds
// the greatest logit and the sum of exponentials together, a second one writes the gradient. Rows labelled −100 count nothing:
// their loss and their gradient are exactly 0. Several invocations a row, which meet at a barrier, or one, which needs none.

struct Params {
  rows: u32,
  // Vectors of a row.
  vectors: u32,
  // Invocations that share a row where many do: 16, 64 or 256.
  lanes: u32,
  gradient: u32,
  firstGroup: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<Vector>;
@group(0) @binding(2) var<storage, read_write> labels: array<i32>;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;
@group(0) @binding(4) var<storage, read_write> normaliser: array<f32>;

// A finite stand-in for −∞: shaders may assume that infinities never occur.
const LOWEST = -1e30;

// The greatest of some logits, and the sum of the exponentials of all of them less the greatest.
struct Sum {
  highest: f32,
  total: f32,
}

// Of every stride-th vector of the row that begins at `base`. Four vectors at a time, so that the sum is rescaled once for four.
fn sum_of_lane(base: u32, lane: u32, stride: u32) -> Sum {
  var highest = LOWEST;
  var total = Vector();
  var i = lane;
  for (; i + 3u * stride < params.vectors; i += 4u * stride) {
    let a = logits[base + i];
    let b = logits[base + i + stride];
    let c = logits[base + i + 2u * stride];
    let d = logits[base + i + 3u * stride];
    let next = max(highest, highest_of(max(max(a, b), max(c, d))));
    total = total * exp(highest - next) + ((exp(a - next) + exp(b - next)) + (exp(c - next) + exp(d - next)));
    highest = next;
  }
  for (; i < params.vectors; i += stride) {
    let a = logits[base + i];
    let next = max(highest, highest_of(a));
    total = total * exp(highest - next) + exp(a - next);
    highest = next;
  }
  return Sum(highest, sum_of(total));
}

var<workgroup> partial: array<Sum, 256>;

// `count` sums, `step` apart, as one.
fn joined(first: u32, step: u32, count: u32) -> Sum {
  var highest = LOWEST;
  for (var i = 0u; i < count; i++) {
    highest = max(highest, partial[first + i * step].highest);
  }
  var total = 0.0;
  for (var i = 0u; i < count; i++) {
    let part = partial[first + i * step];
    total += part.total * exp(part.highest - highest);
  }
  return Sum(highest, total);
}

// The sum of the whole row, from the one of each invocation that shares it: of sixteen first, and then of these.
fn sum_over_row(local: u32, own: Sum) -> Sum {
  partial[local] = own;
  workgroupBarrier();
  let sixteen = joined(local / 16u * 16u, 1u, 16u);
  if (params.lanes == 16u) {
    return sixteen;
  }
  workgroupBarrier();
  partial[local] = sixteen;
  workgroupBarrier();
  return joined(local / params.lanes * params.lanes, 16u, params.lanes / 16u);
}

fn write_gradient(base: u32, lane: u32, stride: u32, row: Sum, label: i32) {
  if (params.gradient == 0u) {
    return;
  }
  let factor = select(0.0, normaliser[0], label >= 0);
  let scale = factor / row.total;
  var i = lane;
  for (; i + 3u * stride < params.vectors; i += 4u * stride) {
    let at = base + i;
    logits[at] = scale * exp(logits[at] - row.highest);
    logits[at + stride] = scale * exp(logits[at + stride] - row.highest);
    logits[at + 2u * stride] = scale * exp(logits[at + 2u * stride] - row.highest);
    logits[at + 3u * stride] = scale * exp(logits[at + 3u * stride] - row.highest);
  }
  for (; i < params.vectors; i += stride) {
    logits[base + i] = scale * exp(logits[base + i] - row.highest);
  }
  // By whoever wrote that vector.
  let place = u32(max(label, 0));
  if (label >= 0 && place / VECTOR_SIZE % stride == lane) {
    logits[base + place / VECTOR_SIZE] -= factor * one_at(place % VECTOR_SIZE);
  }
}

fn logit_of(base: u32, label: i32) -> f32 {
  let place = u32(max(label, 0));
  return element_of(logits[base + place / VECTOR_SIZE], place % VECTOR_SIZE);
}

fn write_loss(row: u32, sum: Sum, logit: f32, label: i32) {
  loss[row] = select(0.0, sum.highest + log(sum.total) - logit, label >= 0);
}

@compute @workgroup_size(256)
fn many(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let group = params.firstGroup + wg.y * groups.x + wg.x;
  let row = group * (256u / params.lanes) + local / params.lanes;
  let lane = local % params.lanes;
  let base = min(row, params.rows - 1u) * params.vectors;
  let label = labels[min(row, params.rows - 1u)];
  // Read before anyone overwrites it, which is after the barrier.
  let logit = logit_of(base, label);
  let sum = sum_over_row(local, sum_of_lane(base, lane, params.lanes));
  if (row >= params.rows) {
    return;
  }
  if (lane == 0u) {
    write_loss(row, sum, logit, label);
  }
  write_gradient(base, lane, params.lanes, sum, label);
}

@compute @workgroup_size(8)
fn one(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = (params.firstGroup + wg.y * groups.x + wg.x) * 8u + local;
  if (row >= params.rows) {
    return;
  }
  let base = row * params.vectors;
  let label = labels[row];
  let sum = sum_of_lane(base, 0u, 1u);
  write_loss(row, sum, logit_of(base, label), label);
  write_gradient(base, 0u, 1u, sum, label);
}
