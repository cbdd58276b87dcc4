// RMSNorm (Zhang and Sennrich 2019): y = x · rstd · weight with rstd = 1/√(mean(x²) + ε). The backward
// pass gives dx only, since the weight is frozen: dx = rstd · (g − x · rstd² · mean(g·x)), g = dy · weight.

struct Params {
  rows: u32,
  width: u32,
  accumulate: u32,
  eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;

// Four rows a workgroup, eight invocations a row: one barrier a row, since software adapters pay dearly for barriers.
const LANES = 8u;
const ROWS = 4u;

var<workgroup> partial: array<f32, 32>;

fn sum_over_row(local: u32, value: f32) -> f32 {
  partial[local] = value;
  workgroupBarrier();
  let first = local / LANES * LANES;
  var sum = 0.0;
  for (var i = 0u; i < LANES; i++) {
    sum += partial[first + i];
  }
  return sum;
}

@compute @workgroup_size(32)
fn forward(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = (wg.y * groups.x + wg.x) * ROWS + local / LANES;
  let lane = local % LANES;
  let base = min(row, params.rows - 1u) * params.width;
  var squares = 0.0;
  for (var i = lane; i < params.width; i += LANES) {
    squares = fma(x[base + i], x[base + i], squares);
  }
  let scale = inverseSqrt(sum_over_row(local, squares) / f32(params.width) + params.eps);
  if (row >= params.rows) {
    return;
  }
  for (var i = lane; i < params.width; i += LANES) {
    y[base + i] = x[base + i] * scale * weight[i];
  }
  if (lane == 0u) {
    rstd[row] = scale;
  }
}

// Here y holds dy.
@compute @workgroup_size(32)
fn backward(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = (wg.y * groups.x + wg.x) * ROWS + local / LANES;
  let lane = local % LANES;
  let base = min(row, params.rows - 1u) * params.width;
  var product = 0.0;
  for (var i = lane; i < params.width; i += LANES) {
    product = fma(y[base + i] * weight[i], x[base + i], product);
  }
  let total = sum_over_row(local, product);
  if (row >= params.rows) {
    return;
  }
  let scale = rstd[row];
  let slope = total / f32(params.width) * scale * scale;
  for (var i = lane; i < params.width; i += LANES) {
    let gradient = scale * fma(-x[base + i], slope, y[base + i] * weight[i]);
    if (params.accumulate != 0u) {
      dx[base + i] += gradient;
    } else {
      dx[base + i] = gradient;
    }
  }
}
