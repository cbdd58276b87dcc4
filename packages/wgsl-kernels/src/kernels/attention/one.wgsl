// One key (or query) at a time, for heads small enough to stand in registers. See attention.wgsl.
const STEP = 1u;
alias Lanes = f32;
alias Places = u32;

// The rows n … n + STEP − 1 of `count`, those beyond the end replaced by the last.
fn places(n: u32, count: u32) -> u32 { return n; }
// `values` of the rows before the end, `other` for those beyond it.
fn masked(values: f32, other: f32, n: u32, count: u32) -> f32 { return values; }
fn highest_of(a: f32) -> f32 { return a; }
fn sum_of(a: f32) -> f32 { return a; }

// Products of part d of a vector with the same part of the vectors that begin at `first`.
fn q_dots(a: Part, first: u32, d: u32) -> f32 { return part_dot(a, q[first + d]); }
fn k_dots(a: Part, first: u32, d: u32) -> f32 { return part_dot(a, k[first + d]); }
fn v_dots(a: Part, first: u32, d: u32) -> f32 { return part_dot(a, v[first + d]); }
fn dout_dots(a: Part, first: u32, d: u32) -> f32 { return part_dot(a, dout[first + d]); }

// Part d of the sum of those vectors, weighted.
fn q_sum(weights: f32, first: u32, d: u32) -> Part { return weights * q[first + d]; }
fn k_sum(weights: f32, first: u32, d: u32) -> Part { return weights * k[first + d]; }
fn v_sum(weights: f32, first: u32, d: u32) -> Part { return weights * v[first + d]; }
fn dout_sum(weights: f32, first: u32, d: u32) -> Part { return weights * dout[first + d]; }

fn lse_of(i: u32) -> f32 { return stats[i].x; }
fn delta_of(i: u32) -> f32 { return stats[i].y; }
