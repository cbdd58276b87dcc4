// Four keys (or queries) at a time, for larger heads: what an invocation keeps of its own vectors is then read once for
// four others. See attention.wgsl, and one.wgsl for what each function is.
const STEP = 4u;
alias Lanes = vec4f;
alias Places = vec4u;

fn places(n: u32, count: u32) -> vec4u { return min(n + vec4u(0u, 1u, 2u, 3u), vec4u(count - 1u)); }
fn masked(values: vec4f, other: f32, n: u32, count: u32) -> vec4f {
  return select(vec4f(other), values, n + vec4u(0u, 1u, 2u, 3u) < vec4u(count));
}
fn highest_of(a: vec4f) -> f32 { return max(max(a.x, a.y), max(a.z, a.w)); }
fn sum_of(a: vec4f) -> f32 { return (a.x + a.y) + (a.z + a.w); }

fn q_dots(a: Part, first: vec4u, d: u32) -> vec4f {
  return vec4f(part_dot(a, q[first.x + d]), part_dot(a, q[first.y + d]), part_dot(a, q[first.z + d]), part_dot(a, q[first.w + d]));
}
fn k_dots(a: Part, first: vec4u, d: u32) -> vec4f {
  return vec4f(part_dot(a, k[first.x + d]), part_dot(a, k[first.y + d]), part_dot(a, k[first.z + d]), part_dot(a, k[first.w + d]));
}
fn v_dots(a: Part, first: vec4u, d: u32) -> vec4f {
  return vec4f(part_dot(a, v[first.x + d]), part_dot(a, v[first.y + d]), part_dot(a, v[first.z + d]), part_dot(a, v[first.w + d]));
}
fn dout_dots(a: Part, first: vec4u, d: u32) -> vec4f {
  return vec4f(part_dot(a, dout[first.x + d]),
    part_dot(a, dout[first.y + d]),
    part_dot(a, dout[first.z + d]),
    part_dot(a, dout[first.w + d]));
}

fn q_sum(weights: vec4f, first: vec4u, d: u32) -> Part {
  return (weights.x * q[first.x + d] + weights.y * q[first.y + d]) + (weights.z * q[first.z + d] + weights.w * q[first.w + d]);
}
fn k_sum(weights: vec4f, first: vec4u, d: u32) -> Part {
  return (weights.x * k[first.x + d] + weights.y * k[first.y + d]) + (weights.z * k[first.z + d] + weights.w * k[first.w + d]);
}
fn v_sum(weights: vec4f, first: vec4u, d: u32) -> Part {
  return (weights.x * v[first.x + d] + weights.y * v[first.y + d]) + (weights.z * v[first.z + d] + weights.w * v[first.w + d]);
}
fn dout_sum(weights: vec4f, first: vec4u, d: u32) -> Part {
  return (weights.x * dout[first.x + d] + weights.y * dout[first.y + d]) + (weights.z * dout[first.z + d] + weights.w * dout[first.w + d]);
}

fn lse_of(i: vec4u) -> vec4f { return vec4f(stats[i.x].x, stats[i.y].x, stats[i.z].x, stats[i.w].x); }
fn delta_of(i: vec4u) -> vec4f { return vec4f(stats[i.x].y, stats[i.y].y, stats[i.z].y, stats[i.w].y); }
