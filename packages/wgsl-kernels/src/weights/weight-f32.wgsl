
// A weight kept as it is, in rows of whole vectors of four.
@group(0) @binding(2) var<storage, read_write> weights: array<vec4f>;

fn weight4(i: u32) -> vec4f {
  return weights[i];
}
