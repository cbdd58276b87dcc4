// What the products aᵀ·b share; their texts follow.
struct Params {
  rows: u32,
  columns: u32,
  inner: u32,
  accumulate: u32,
  alpha: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
