// What all shaders of attention share: sizes, tensors, and which rows a span counts. A head is `parts` Parts, vectors of
// four where that divides it.

struct Params {
  // Rows of q, and of k and v.
  queries: u32,
  keys: u32,
  heads: u32,
  kvHeads: u32,
  // Keys a query sees at most, and queries that see a key.
  window: u32,
  parts: u32,
  // Where this dispatch begins among all workgroups of the call.
  firstGroup: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

// A finite stand-in for −∞: shaders may assume that infinities never occur.
const LOWEST: f32 = -1e30;

@group(0) @binding(1) var<storage, read_write> q: array<Part>;
@group(0) @binding(2) var<storage, read_write> k: array<Part>;
@group(0) @binding(3) var<storage, read_write> v: array<Part>;
// First and last row of k that each query sees; in backward_key, of q that sees each key.
@group(0) @binding(4) var<storage, read_write> spans: array<vec2u>;
@group(0) @binding(5) var<storage, read_write> out: array<Part>;
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;
@group(0) @binding(7) var<storage, read_write> dout: array<Part>;
// (lse, delta) of each query, delta = Σ dout·out: the part of the softmax gradient that all its keys share.
@group(0) @binding(8) var<storage, read_write> stats: array<vec2f>;
@group(0) @binding(9) var<storage, read_write> dv: array<Part>;

// How many rows of a span count. None where the last comes before the first.
fn visible(span: vec2u) -> u32 {
  return select(min(params.window, span.y - span.x + 1u), 0u, span.y < span.x);
}
