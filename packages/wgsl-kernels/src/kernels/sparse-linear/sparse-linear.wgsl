// y += x·Sᵀ for a sparse S [out, in] with the same number of elements in every row, the gradient of x, and that of the
// elements alone. A gather in both directions: the transposed product walks lists by column, so no atomics are needed and
// sums have one order. Four rows of x an invocation, so that a place and its value are read once for four.

struct Params {
  rows: u32,
  inner: u32,
  outputs: u32,
  perRow: u32,
  // 0 replaces dv, 1 adds to it.
  accumulate: u32,
  firstGroup: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [rows, inner]
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
// [rows, outputs]: y or dy
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
// [outputs, perRow]
@group(0) @binding(3) var<storage, read_write> columns: array<u32>;
@group(0) @binding(4) var<storage, read_write> values: array<f32>;
// [inner + 1]: where the list of each column begins in `entries`, whose numbers are places in `values`.
@group(0) @binding(5) var<storage, read_write> starts: array<u32>;
@group(0) @binding(6) var<storage, read_write> entries: array<u32>;
@group(0) @binding(7) var<storage, read_write> dx: array<f32>;
@group(0) @binding(8) var<storage, read_write> dv: array<f32>;

const ROWS = 4u;

// x: element of a row; y: first of four rows.
fn place(group: u32, width: u32, local: u32) -> vec2u {
  let blocks = (width + 63u) / 64u;
  return vec2u((group % blocks) * 64u + local, (group / blocks) * ROWS);
}

// Where four rows `width` wide begin; those beyond the end read the last one.
fn row_starts(first: u32, width: u32) -> vec4u {
  return min(vec4u(first) + vec4u(0u, 1u, 2u, 3u), vec4u(params.rows - 1u)) * width;
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let at = place(params.firstGroup + wg.y * groups.x + wg.x, params.outputs, local);
  if (at.x >= params.outputs || at.y >= params.rows) {
    return;
  }
  let row = row_starts(at.y, params.inner);
  var sum = vec4f(0.0);
  let first = at.x * params.perRow;
  for (var k = first; k < first + params.perRow; k += 1u) {
    let c = columns[k];
    sum += values[k] * vec4f(x[row.x + c], x[row.y + c], x[row.z + c], x[row.w + c]);
  }
  for (var r = 0u; r < min(ROWS, params.rows - at.y); r += 1u) {
    y[(at.y + r) * params.outputs + at.x] += sum[r];
  }
}

@compute @workgroup_size(64)
fn input_gradient(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let at = place(params.firstGroup + wg.y * groups.x + wg.x, params.inner, local);
  if (at.x >= params.inner || at.y >= params.rows) {
    return;
  }
  let row = row_starts(at.y, params.outputs);
  var sum = vec4f(0.0);
  for (var e = starts[at.x]; e < starts[at.x + 1u]; e += 1u) {
    let k = entries[e];
    let o = k / params.perRow;
    sum += values[k] * vec4f(y[row.x + o], y[row.y + o], y[row.z + o], y[row.w + o]);
  }
  for (var r = 0u; r < min(ROWS, params.rows - at.y); r += 1u) {
    dx[(at.y + r) * params.inner + at.x] += sum[r];
  }
}

// One element an invocation: neighbours share a row of dy. Four running sums.
@compute @workgroup_size(64)
fn value_gradient(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let k = (params.firstGroup + wg.y * groups.x + wg.x) * 64u + local;
  if (k >= params.outputs * params.perRow) {
    return;
  }
  let c = columns[k];
  let o = k / params.perRow;
  var sums = vec4f(0.0);
  var n = 0u;
  for (; n + 3u < params.rows; n += ROWS) {
    let rows = vec4u(n, n + 1u, n + 2u, n + 3u) * params.outputs + o;
    let inputs = vec4u(n, n + 1u, n + 2u, n + 3u) * params.inner + c;
    sums += vec4f(y[rows.x], y[rows.y], y[rows.z], y[rows.w]) * vec4f(x[inputs.x], x[inputs.y], x[inputs.z], x[inputs.w]);
  }
  var sum = (sums.x + sums.y) + (sums.z + sums.w);
  for (; n < params.rows; n += 1u) {
    sum += y[n * params.outputs + o] * x[n * params.inner + c];
  }
  if (params.accumulate == 1u) {
    sum += dv[k];
  }
  dv[k] = sum;
}
