// Rotary position embedding (Su et al. 2021) in the rotate-half convention of Hugging Face checkpoints: element i of a
// head is paired with element i + headSize/2. In place; `direction` −1 turns back, which is the gradient.

struct Params {
  rows: u32,
  heads: u32,
  halfHead: u32,
  positions: u32,
  direction: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> cosines: array<f32>;
@group(0) @binding(3) var<storage, read_write> sines: array<f32>;
@group(0) @binding(4) var<storage, read_write> positions: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (wg.y * groups.x + wg.x) * 64u + local;
  let stride = groups.x * groups.y * 64u;
  for (var i = first; i < params.rows * params.heads * params.halfHead; i += stride) {
    let pair = i % params.halfHead;
    let head = i / params.halfHead;
    let position = min(positions[head / params.heads], params.positions - 1u);
    let angle = position * params.halfHead + pair;
    let cosine = cosines[angle];
    let sine = params.direction * sines[angle];
    let low = head * params.halfHead * 2u + pair;
    let high = low + params.halfHead;
    let a = x[low];
    let b = x[high];
    x[low] = a * cosine - b * sine;
    x[high] = b * cosine + a * sine;
  }
}
