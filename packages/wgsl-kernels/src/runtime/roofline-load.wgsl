// Reads some kilobytes again and again: what loads cost where memory is no limit. `Value` and `total` stand before this text.

struct Params {
  count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<Value>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<storage, read_write> work: array<u32>;

@compute @workgroup_size(64)
fn load(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = (wg.y * groups.x + wg.x) * 64u + local;
  if (i >= params.count) {
    return;
  }
  var sum = Value();
  let loops = work[0];
  for (var k = 0u; k < loops; k++) {
    // Neighbours read neighbours, and every turn elsewhere.
    let at = (i + 16u * k) % 1024u;
    let a = (x[at] + x[at + 1u]) + (x[at + 2u] + x[at + 3u]);
    let b = (x[at + 4u] + x[at + 5u]) + (x[at + 6u] + x[at + 7u]);
    let c = (x[at + 8u] + x[at + 9u]) + (x[at + 10u] + x[at + 11u]);
    let d = (x[at + 12u] + x[at + 13u]) + (x[at + 14u] + x[at + 15u]);
    sum += (a + b) + (c + d);
  }
  out[i] = total(sum);
}
