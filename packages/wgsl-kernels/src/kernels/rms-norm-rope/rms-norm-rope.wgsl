// RMSNorm of every head and then rotary position embedding, as Qwen3 has for queries and keys: y = turned(x · rstd · weight).
// Backward, dy is turned back to the gradient of the norm's output, on which the norm's own gradient follows; dx is written
// over dy. See rms-norm.wgsl and rope.wgsl. Several invocations a head, which meet at a barrier, or one, which needs none.

struct Params {
  // Heads of all rows, and of one.
  count: u32,
  heads: u32,
  // Vectors of half a head.
  halfHead: u32,
  // Invocations that share a head: a power of two, or 1.
  lanes: u32,
  positions: u32,
  // 1 / elements of a head
  share: f32,
  eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<Vector>;
@group(0) @binding(2) var<storage, read_write> weight: array<Vector>;
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(4) var<storage, read_write> cosines: array<Vector>;
@group(0) @binding(5) var<storage, read_write> sines: array<Vector>;
@group(0) @binding(6) var<storage, read_write> positions: array<u32>;
@group(0) @binding(7) var<storage, read_write> y: array<Vector>;

var<workgroup> partial: array<f32, 64>;

// Σ of the values of those who share a head with this invocation.
fn sum_over_head(local: u32, value: f32) -> f32 {
  partial[local] = value;
  workgroupBarrier();
  let first = local / params.lanes * params.lanes;
  var sum = 0.0;
  for (var i = 0u; i < params.lanes; i++) {
    sum += partial[first + i];
  }
  return sum;
}

fn angles_of(head: u32) -> u32 {
  return min(positions[head / params.heads], params.positions - 1u) * params.halfHead;
}

fn squares_of(head: u32, lane: u32, stride: u32) -> f32 {
  let low = head * params.halfHead * 2u;
  let high = low + params.halfHead;
  var squares = Vector();
  for (var i = lane; i < params.halfHead; i += stride) {
    let a = x[low + i];
    let b = x[high + i];
    squares = fma(a, a, fma(b, b, squares));
  }
  return sum_of(squares);
}

fn norm_and_turn(head: u32, lane: u32, stride: u32, squares: f32) {
  let scale = inverseSqrt(squares * params.share + params.eps);
  let low = head * params.halfHead * 2u;
  let high = low + params.halfHead;
  let angles = angles_of(head);
  for (var i = lane; i < params.halfHead; i += stride) {
    let a = x[low + i] * scale * weight[i];
    let b = x[high + i] * scale * weight[params.halfHead + i];
    let cosine = cosines[angles + i];
    let sine = sines[angles + i];
    y[low + i] = a * cosine - b * sine;
    y[high + i] = b * cosine + a * sine;
  }
  if (lane == 0u) {
    rstd[head] = scale;
  }
}

// Here y holds dy: dy turned back and times the weight, which is also left in its place. Σ of its products with x.
fn turn_back(head: u32, lane: u32, stride: u32) -> f32 {
  let low = head * params.halfHead * 2u;
  let high = low + params.halfHead;
  let angles = angles_of(head);
  var products = Vector();
  for (var i = lane; i < params.halfHead; i += stride) {
    let a = y[low + i];
    let b = y[high + i];
    let cosine = cosines[angles + i];
    let sine = sines[angles + i];
    let ga = (a * cosine + b * sine) * weight[i];
    let gb = (b * cosine - a * sine) * weight[params.halfHead + i];
    y[low + i] = ga;
    y[high + i] = gb;
    products = fma(ga, x[low + i], fma(gb, x[high + i], products));
  }
  return sum_of(products);
}

// From what turn_back has left in y; each invocation reads what it has written itself.
fn norm_back(head: u32, lane: u32, stride: u32, products: f32) {
  let scale = rstd[head];
  let slope = products * params.share * scale * scale;
  let base = head * params.halfHead * 2u;
  for (var i = lane; i < params.halfHead; i += stride) {
    let low = base + i;
    let high = low + params.halfHead;
    y[low] = scale * (y[low] - x[low] * slope);
    y[high] = scale * (y[high] - x[high] * slope);
  }
}

@compute @workgroup_size(64)
fn forward_many(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let head = (wg.y * groups.x + wg.x) * (64u / params.lanes) + local / params.lanes;
  let lane = local % params.lanes;
  let squares = sum_over_head(local, squares_of(min(head, params.count - 1u), lane, params.lanes));
  if (head < params.count) {
    norm_and_turn(head, lane, params.lanes, squares);
  }
}

@compute @workgroup_size(64)
fn backward_many(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let head = (wg.y * groups.x + wg.x) * (64u / params.lanes) + local / params.lanes;
  let lane = local % params.lanes;
  var products = 0.0;
  if (head < params.count) {
    products = turn_back(head, lane, params.lanes);
  }
  products = sum_over_head(local, products);
  if (head < params.count) {
    norm_back(head, lane, params.lanes, products);
  }
}

@compute @workgroup_size(8)
fn forward_one(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let head = (wg.y * groups.x + wg.x) * 8u + local;
  if (head < params.count) {
    norm_and_turn(head, 0u, 1u, squares_of(head, 0u, 1u));
  }
}

@compute @workgroup_size(8)
fn backward_one(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let head = (wg.y * groups.x + wg.x) * 8u + local;
  if (head < params.count) {
    norm_back(head, 0u, 1u, turn_back(head, 0u, 1u));
  }
}
