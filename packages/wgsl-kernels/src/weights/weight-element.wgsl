
// Single elements of an encoded weight.
fn weight(i: u32) -> f32 {
  return weight4(i / 4u)[i % 4u];
}
