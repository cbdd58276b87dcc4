
// Completes a shader written over `Vector` for sizes that are multiples of four.
alias Vector = vec4f;
alias Bits = vec4u;
const VECTOR_SIZE = 4u;
fn sum_of(v: Vector) -> f32 { return (v.x + v.y) + (v.z + v.w); }
fn highest_of(v: Vector) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }
fn highest_bits(v: Bits) -> u32 { return max(max(v.x, v.y), max(v.z, v.w)); }
fn element_of(v: Vector, i: u32) -> f32 { return v[i]; }
fn one_at(i: u32) -> Vector { return select(Vector(0.0), Vector(1.0), vec4u(i) == vec4u(0u, 1u, 2u, 3u)); }
