
// A weight kept as it is, in rows of any length.
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;

fn weight(i: u32) -> f32 {
  return weights[i];
}
