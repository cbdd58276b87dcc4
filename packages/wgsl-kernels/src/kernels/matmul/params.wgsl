
// What the products a·bᵀ and a·b share, b being a weight or a part of one.
struct Params {
  // Added to the folded workgroup index, for dispatches that are cut.
  firstGroup: u32,
  // Whether it is a·bᵀ; only the shader for any sizes asks.
  transposed: u32,
  // Sizes of the product, as far as the part of b goes.
  rows: u32,
  columns: u32,
  inner: u32,
  // Elements from one row of a, b and c to the next, and the columns of a and c at which the part begins.
  aStride: u32,
  aColumn: u32,
  bStride: u32,
  cStride: u32,
  cColumn: u32,
  accumulate: u32,
  // Whether there is a residual to add; asked by shaders that can.
  residual: u32,
  alpha: f32,
  // Inner size of the low-rank branch, and its factor.
  rank: u32,
  branchScale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
