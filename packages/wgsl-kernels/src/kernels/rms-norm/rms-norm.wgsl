// RMSNorm (Zhang and Sennrich 2019): y = x · rstd · weight with rstd = 1/√(mean(x²) + ε). The backward
// pass gives dx only, since the weight is frozen: dx = rstd · (g − x · rstd² · mean(g·x)), g = dy · weight.
// Each comes twice: several invocations a row, which meet at a barrier, and four rows an invocation, which needs none and
// reads the weight once for four rows.

struct Params {
  rows: u32,
  // Vectors of a row.
  vectors: u32,
  // Invocations that share a row: a power of two, or 1.
  lanes: u32,
  accumulate: u32,
  // 1 / elements of a row
  share: f32,
  eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<Vector>;
@group(0) @binding(2) var<storage, read_write> weight: array<Vector>;
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<Vector>;
@group(0) @binding(5) var<storage, read_write> dx: array<Vector>;

var<workgroup> partial: array<f32, 64>;

// Σ of the values of those who share a row with this invocation.
fn sum_over_row(local: u32, value: f32) -> f32 {
  partial[local] = value;
  workgroupBarrier();
  let first = local / params.lanes * params.lanes;
  var sum = 0.0;
  for (var i = 0u; i < params.lanes; i++) {
    sum += partial[first + i];
  }
  return sum;
}

@compute @workgroup_size(64)
fn forward_many(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = (wg.y * groups.x + wg.x) * (64u / params.lanes) + local / params.lanes;
  let lane = local % params.lanes;
  let base = min(row, params.rows - 1u) * params.vectors;
  var squares = Vector();
  for (var i = lane; i < params.vectors; i += params.lanes) {
    let value = x[base + i];
    squares = fma(value, value, squares);
  }
  let scale = inverseSqrt(sum_over_row(local, sum_of(squares)) * params.share + params.eps);
  if (row >= params.rows) {
    return;
  }
  for (var i = lane; i < params.vectors; i += params.lanes) {
    y[base + i] = x[base + i] * scale * weight[i];
  }
  if (lane == 0u) {
    rstd[row] = scale;
  }
}

// Here y holds dy.
@compute @workgroup_size(64)
fn backward_many(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = (wg.y * groups.x + wg.x) * (64u / params.lanes) + local / params.lanes;
  let lane = local % params.lanes;
  let base = min(row, params.rows - 1u) * params.vectors;
  var products = Vector();
  for (var i = lane; i < params.vectors; i += params.lanes) {
    products = fma(y[base + i] * weight[i], x[base + i], products);
  }
  let sum = sum_over_row(local, sum_of(products));
  if (row >= params.rows) {
    return;
  }
  let scale = rstd[row];
  let slope = sum * params.share * scale * scale;
  for (var i = lane; i < params.vectors; i += params.lanes) {
    let gradient = scale * (y[base + i] * weight[i] - x[base + i] * slope);
    if (params.accumulate != 0u) {
      dx[base + i] += gradient;
    } else {
      dx[base + i] = gradient;
    }
  }
}

// The rows from `first` on, which an invocation takes on its own. Rows beyond the end stand for the last row: what is
// written for it several times is the same each time.
fn four_rows(first: u32) -> vec4u {
  return min(first + vec4u(0u, 1u, 2u, 3u), vec4u(params.rows - 1u));
}

@compute @workgroup_size(8)
fn forward_one(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = ((wg.y * groups.x + wg.x) * 8u + local) * 4u;
  if (first >= params.rows) {
    return;
  }
  let rows = four_rows(first);
  let base = rows * params.vectors;
  var a = Vector();
  var b = Vector();
  var c = Vector();
  var d = Vector();
  for (var i = 0u; i < params.vectors; i++) {
    let xa = x[base.x + i];
    let xb = x[base.y + i];
    let xc = x[base.z + i];
    let xd = x[base.w + i];
    a = fma(xa, xa, a);
    b = fma(xb, xb, b);
    c = fma(xc, xc, c);
    d = fma(xd, xd, d);
  }
  let scale = inverseSqrt(vec4f(sum_of(a), sum_of(b), sum_of(c), sum_of(d)) * params.share + params.eps);
  for (var i = 0u; i < params.vectors; i++) {
    let w = weight[i];
    y[base.x + i] = x[base.x + i] * scale.x * w;
    y[base.y + i] = x[base.y + i] * scale.y * w;
    y[base.z + i] = x[base.z + i] * scale.z * w;
    y[base.w + i] = x[base.w + i] * scale.w * w;
  }
  rstd[rows.x] = scale.x;
  rstd[rows.y] = scale.y;
  rstd[rows.z] = scale.z;
  rstd[rows.w] = scale.w;
}

// Here y holds dy.
@compute @workgroup_size(8)
fn backward_one(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = ((wg.y * groups.x + wg.x) * 8u + local) * 4u;
  if (first >= params.rows) {
    return;
  }
  let rows = four_rows(first);
  let base = rows * params.vectors;
  var a = Vector();
  var b = Vector();
  var c = Vector();
  var d = Vector();
  for (var i = 0u; i < params.vectors; i++) {
    let w = weight[i];
    a = fma(y[base.x + i] * w, x[base.x + i], a);
    b = fma(y[base.y + i] * w, x[base.y + i], b);
    c = fma(y[base.z + i] * w, x[base.z + i], c);
    d = fma(y[base.w + i] * w, x[base.w + i], d);
  }
  let scale = vec4f(rstd[rows.x], rstd[rows.y], rstd[rows.z], rstd[rows.w]);
  let slope = vec4f(sum_of(a), sum_of(b), sum_of(c), sum_of(d)) * params.share * scale * scale;
  for (var i = 0u; i < params.vectors; i++) {
    let w = weight[i];
    a = scale.x * (y[base.x + i] * w - x[base.x + i] * slope.x);
    b = scale.y * (y[base.y + i] * w - x[base.y + i] * slope.y);
    c = scale.z * (y[base.z + i] * w - x[base.z + i] * slope.z);
    d = scale.w * (y[base.w + i] * w - x[base.w + i] * slope.w);
    if (params.accumulate != 0u) {
      // All four are read before any is written, since the last row may stand here several times.
      a += dx[base.x + i];
      b += dx[base.y + i];
      c += dx[base.z + i];
      d += dx[base.w + i];
    }
    dx[base.x + i] = a;
    dx[base.y + i] = b;
    dx[base.z + i] = c;
    dx[base.w + i] = d;
  }
}
