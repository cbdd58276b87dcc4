
// A weight in 8 bits: code / 127 of its block's largest, a half. Eight vectors make a block, the scales of two a word.
@group(0) @binding(2) var<storage, read_write> weights: array<u32>;
@group(0) @binding(4) var<storage, read_write> scales: array<u32>;

fn weight4(i: u32) -> vec4f {
  let scale = unpack2x16float(scales[i / 16u])[(i / 8u) & 1u];
  return unpack4x8snorm(weights[i]) * scale;
}
