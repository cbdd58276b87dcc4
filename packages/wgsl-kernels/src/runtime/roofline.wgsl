// Loops that do nothing but what they measure. `Scalar`, `Value`, `total` and INVOCATIONS stand before this text, one set for
// each variant. Several chains, so that one operation need not wait for the last: how many are best is what the sweep finds.
// Inner loops of a known length, because a compiler guards a loop whose end it does not know at every turn.

struct Params {
  count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;

fn place(wg: vec3u, groups: vec3u, local: u32) -> u32 {
  return (wg.y * groups.x + wg.x) * INVOCATIONS + local;
}

@compute @workgroup_size(INVOCATIONS)
fn multiply_add_2(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = place(wg, groups, local);
  if (i >= params.count) {
    return;
  }
  let factor = Value(0.999);
  let term = Value(Scalar(i & 7u));
  var a = term; var b = term + 1.0;
  let loops = work[0];
  for (var k = 0u; k < loops; k++) {
    for (var j = 0u; j < 4u; j++) {
      a = fma(a, factor, term); b = fma(b, factor, term); a = fma(a, factor, term); b = fma(b, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); a = fma(a, factor, term); b = fma(b, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); a = fma(a, factor, term); b = fma(b, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); a = fma(a, factor, term); b = fma(b, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); a = fma(a, factor, term); b = fma(b, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); a = fma(a, factor, term); b = fma(b, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); a = fma(a, factor, term); b = fma(b, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); a = fma(a, factor, term); b = fma(b, factor, term);
    }
  }
  // Written, so that no compiler leaves the work out.
  out[i] = total(a + b);
}

@compute @workgroup_size(INVOCATIONS)
fn multiply_add_4(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = place(wg, groups, local);
  if (i >= params.count) {
    return;
  }
  let factor = Value(0.999);
  let term = Value(Scalar(i & 7u));
  var a = term; var b = term + 1.0; var c = term + 2.0; var d = term + 3.0;
  let loops = work[0];
  for (var k = 0u; k < loops; k++) {
    for (var j = 0u; j < 4u; j++) {
      a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
    }
  }
  out[i] = total((a + b) + (c + d));
}

@compute @workgroup_size(INVOCATIONS)
fn multiply_add_8(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = place(wg, groups, local);
  if (i >= params.count) {
    return;
  }
  let factor = Value(0.999);
  let term = Value(Scalar(i & 7u));
  var a = term; var b = term + 1.0; var c = term + 2.0; var d = term + 3.0;
  var e = term + 4.0; var f = term + 5.0; var g = term + 6.0; var h = term + 7.0;
  let loops = work[0];
  for (var k = 0u; k < loops; k++) {
    for (var j = 0u; j < 4u; j++) {
      a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
      e = fma(e, factor, term); f = fma(f, factor, term); g = fma(g, factor, term); h = fma(h, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
      e = fma(e, factor, term); f = fma(f, factor, term); g = fma(g, factor, term); h = fma(h, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
      e = fma(e, factor, term); f = fma(f, factor, term); g = fma(g, factor, term); h = fma(h, factor, term);
      a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
      e = fma(e, factor, term); f = fma(f, factor, term); g = fma(g, factor, term); h = fma(h, factor, term);
    }
  }
  out[i] = total(((a + b) + (c + d)) + ((e + f) + (g + h)));
}

@compute @workgroup_size(INVOCATIONS)
fn exponential(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = place(wg, groups, local);
  if (i >= params.count) {
    return;
  }
  let start = Value(Scalar(i & 7u));
  var a = start; var b = start + 1.0; var c = start + 2.0; var d = start + 3.0;
  let loops = work[0];
  for (var k = 0u; k < loops; k++) {
    // exp(−x) again and again tends to 0.567: nothing grows, and nothing becomes a subnormal number.
    a = exp(-a); b = exp(-b); c = exp(-c); d = exp(-d);
    a = exp(-a); b = exp(-b); c = exp(-c); d = exp(-d);
  }
  out[i] = total((a + b) + (c + d));
}
