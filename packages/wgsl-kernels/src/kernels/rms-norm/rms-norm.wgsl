// RMSNorm (Zhang and Sennrich 2019): y = x · rstd · weight with rstd = 1/√(mean(x²) + ε), a row a workgroup. The backward
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

var<workgroup> partial: array<f32, 32>;

fn sum_over_row(local: u32, value: f32) -> f32 {
  partial[local] = value;
  workgroupBarrier();
  for (var half = 16u; half > 0u; half /= 2u) {
    if (local < half) {
      partial[local] += partial[local + half];
    }
    workgroupBarrier();
  }
  return partial[0];
}

@compute @workgroup_size(32)
fn forward(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = wg.y * groups.x + wg.x;
  let base = min(row, params.rows - 1u) * params.width;
  var squares = 0.0;
  for (var i = local; i < params.width; i += 32u) {
    squares = fma(x[base + i], x[base + i], squares);
  }
  let scale = inverseSqrt(sum_over_row(local, squares) / f32(params.width) + params.eps);
  if (row >= params.rows) {
    return;
  }
  for (var i = local; i < params.width; i += 32u) {
    y[base + i] = x[base + i] * scale * weight[i];
  }
  if (local == 0u) {
    rstd[row] = scale;
  }
}

// Here y holds dy.
@compute @workgroup_size(32)
fn backward(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = wg.y * groups.x + wg.x;
  let base = min(row, params.rows - 1u) * params.width;
  var product = 0.0;
  for (var i = local; i < params.width; i += 32u) {
    product = fma(y[base + i] * weight[i], x[base + i], product);
  }
  let total = sum_over_row(local, product);
  if (row >= params.rows) {
    return;
  }
  let scale = rstd[row];
  let slope = total / f32(params.width) * scale * scale;
  for (var i = local; i < params.width; i += 32u) {
    let gradient = scale * fma(-x[base + i], slope, y[base + i] * weight[i]);
    if (params.accumulate != 0u) {
      dx[base + i] += gradient;
    } else {
      dx[base + i] = gradient;
    }
  }
}
