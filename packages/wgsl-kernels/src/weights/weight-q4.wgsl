
// A weight in 4 bits: (code − 8) times its block's scale, a half. Two vectors share a word, the even one in the low
// nibbles; eight vectors make a block, the scales of two a word.
@group(0) @binding(2) var<storage, read_write> weights: array<u32>;
@group(0) @binding(4) var<storage, read_write> scales: array<u32>;

fn weight4(i: u32) -> vec4f {
  let scale = unpack2x16float(scales[i / 16u])[(i / 8u) & 1u];
  let codes = (vec4u(weights[i / 2u]) >> (vec4u(0u, 8u, 16u, 24u) + 4u * (i & 1u))) & vec4u(15u);
  return (vec4f(codes) - 8.0) * scale;
}
