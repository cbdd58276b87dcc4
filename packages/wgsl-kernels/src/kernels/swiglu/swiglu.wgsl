// SwiGLU (Shazeer 2020): out = silu(gate) · up with silu(g) = g·σ(g). Backward: dup = dout · silu(gate) and
// dgate = dout · up · σ(gate) · (1 + gate · (1 − σ(gate))).

struct Params {
  count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> gate: array<f32>;
@group(0) @binding(2) var<storage, read_write> up: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read_write> dgate: array<f32>;
@group(0) @binding(5) var<storage, read_write> dup: array<f32>;

// exp of a large positive number is infinite, which shaders may not rely on; the clamp changes no float32 result.
fn sigmoid(x: f32) -> f32 {
  return 1.0 / (1.0 + exp(clamp(-x, -80.0, 80.0)));
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (wg.y * groups.x + wg.x) * 64u + local;
  let stride = groups.x * groups.y * 64u;
  for (var i = first; i < params.count; i += stride) {
    out[i] = gate[i] * sigmoid(gate[i]) * up[i];
  }
}

// Here out holds dout.
@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (wg.y * groups.x + wg.x) * 64u + local;
  let stride = groups.x * groups.y * 64u;
  for (var i = first; i < params.count; i += stride) {
    let g = gate[i];
    let s = sigmoid(g);
    dup[i] = out[i] * g * s;
    dgate[i] = out[i] * up[i] * s * (1.0 + g * (1.0 - s));
  }
}
