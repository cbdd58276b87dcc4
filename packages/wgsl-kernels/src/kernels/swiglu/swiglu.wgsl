// SwiGLU (Shazeer 2020): out = silu(gate) · up with silu(g) = g·σ(g). Backward: dup = dout · silu(gate) and
// dgate = dout · up · σ(gate) · (1 + gate · (1 − σ(gate))). Four vectors an invocation.

struct Params {
  count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> gate: array<Vector>;
@group(0) @binding(2) var<storage, read_write> up: array<Vector>;
@group(0) @binding(3) var<storage, read_write> out: array<Vector>;
@group(0) @binding(4) var<storage, read_write> dgate: array<Vector>;
@group(0) @binding(5) var<storage, read_write> dup: array<Vector>;

// exp of a large positive number is infinite, which shaders may not rely on; the bound changes no float32 result.
fn sigmoid(x: Vector) -> Vector {
  return 1.0 / (1.0 + exp(min(-x, Vector(80.0))));
}

fn forward_at(i: u32) {
  if (i < params.count) {
    let g = gate[i];
    out[i] = g * sigmoid(g) * up[i];
  }
}

// Here out holds dout.
fn backward_at(i: u32) {
  if (i < params.count) {
    let g = gate[i];
    let s = sigmoid(g);
    let silu = g * s;
    let d = out[i];
    dup[i] = d * silu;
    dgate[i] = d * up[i] * fma(silu, 1.0 - s, s);
  }
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (wg.y * groups.x + wg.x) * 256u + local * OWN;
  forward_at(first);
  forward_at(first + STEP);
  forward_at(first + 2u * STEP);
  forward_at(first + 3u * STEP);
}

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (wg.y * groups.x + wg.x) * 256u + local * OWN;
  backward_at(first);
  backward_at(first + STEP);
  backward_at(first + 2u * STEP);
  backward_at(first + 3u * STEP);
}
