// Rotary position embedding (Su et al. 2021) in the rotate-half convention of Hugging Face checkpoints: element i of a
// head is paired with element i + headSize/2. In place; `direction` −1 turns back, which is the gradient. An invocation turns
// the same pairs of several heads, since all heads of a row turn by the same angles.

struct Params {
  rows: u32,
  heads: u32,
  kvHeads: u32,
  // Vectors of half a head.
  halfHead: u32,
  // Invocations that share the heads of a row.
  shares: u32,
  positions: u32,
  direction: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<Vector>;
@group(0) @binding(2) var<storage, read_write> cosines: array<Vector>;
@group(0) @binding(3) var<storage, read_write> sines: array<Vector>;
@group(0) @binding(4) var<storage, read_write> positions: array<u32>;
@group(0) @binding(5) var<storage, read_write> k: array<Vector>;

struct Turn {
  row: u32,
  // The first head of this invocation; the others follow `shares` apart. Beyond the last row there is none.
  head: u32,
  pair: u32,
  cosine: Vector,
  sine: Vector,
}

fn turn_of(i: u32) -> Turn {
  let rest = i / params.halfHead;
  let row = rest / params.shares;
  var turn: Turn;
  turn.row = row;
  turn.head = select(params.heads + params.kvHeads, rest % params.shares, row < params.rows);
  turn.pair = i % params.halfHead;
  let position = min(positions[min(row, params.rows - 1u)], params.positions - 1u);
  turn.cosine = cosines[position * params.halfHead + turn.pair];
  turn.sine = params.direction * sines[position * params.halfHead + turn.pair];
  return turn;
}

fn turn_x(turn: Turn) {
  for (var head = turn.head; head < params.heads; head += params.shares) {
    let low = (turn.row * params.heads + head) * params.halfHead * 2u + turn.pair;
    let high = low + params.halfHead;
    let a = x[low];
    let b = x[high];
    x[low] = a * turn.cosine - b * turn.sine;
    x[high] = b * turn.cosine + a * turn.sine;
  }
}

fn turn_k(turn: Turn) {
  for (var head = turn.head; head < params.kvHeads; head += params.shares) {
    let low = (turn.row * params.kvHeads + head) * params.halfHead * 2u + turn.pair;
    let high = low + params.halfHead;
    let a = k[low];
    let b = k[high];
    k[low] = a * turn.cosine - b * turn.sine;
    k[high] = b * turn.cosine + a * turn.sine;
  }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  turn_x(turn_of((wg.y * groups.x + wg.x) * 64u + local));
}

// Queries, here x, and keys.
@compute @workgroup_size(64)
fn query_key(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  let turn = turn_of((wg.y * groups.x + wg.x) * 64u + local);
  turn_x(turn);
  turn_k(turn);
}
