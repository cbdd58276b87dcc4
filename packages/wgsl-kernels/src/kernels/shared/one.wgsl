
// Completes a shader written over `Vector` for sizes that are no multiples of four.
alias Vector = f32;
alias Bits = u32;
const VECTOR_SIZE = 1u;
fn sum_of(v: Vector) -> f32 { return v; }
fn highest_of(v: Vector) -> f32 { return v; }
fn highest_bits(v: Bits) -> u32 { return v; }
fn element_of(v: Vector, i: u32) -> f32 { return v; }
fn one_at(i: u32) -> Vector { return 1.0; }
