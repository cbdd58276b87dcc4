
// A weight in half precision, two in a word; needs no feature.
@group(0) @binding(2) var<storage, read_write> weights: array<vec2u>;

fn weight4(i: u32) -> vec4f {
  let bits = weights[i];
  return vec4f(unpack2x16float(bits.x), unpack2x16float(bits.y));
}
