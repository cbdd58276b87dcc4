// Two loops that do nothing but what they measure: multiply-adds in registers, and copies from one place to another.

struct Params {
  count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> work: array<u32>;

@compute @workgroup_size(64)
fn multiply_add(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = (wg.y * groups.x + wg.x) * 64u + local;
  if (i >= params.count) {
    return;
  }
  let factor = vec4f(0.999);
  let term = vec4f(f32(i & 7u));
  // Eight chains, so that one multiply-add need not wait for the last.
  var a = term; var b = term + 1.0; var c = term + 2.0; var d = term + 3.0;
  var e = term + 4.0; var f = term + 5.0; var g = term + 6.0; var h = term + 7.0;
  let loops = work[0];
  for (var k = 0u; k < loops; k++) {
    a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
    e = fma(e, factor, term); f = fma(f, factor, term); g = fma(g, factor, term); h = fma(h, factor, term);
  }
  // Written, so that no compiler leaves the work out.
  out[i] = ((a + b) + (c + d)) + ((e + f) + (g + h));
}

@compute @workgroup_size(64)
fn copy(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = (wg.y * groups.x + wg.x) * 64u + local;
  if (i < params.count) {
    out[i] = x[i];
  }
}
