// WGSL of c = α·aᵀ·b (+ c) where one side of c is short, as gradients of LoRA factors are: a factor's rank. An invocation
// keeps four steps of the long side and all of the short one, so that both operands are read once; four neighbours read the
// short one together and hand it round, for adapters that pay per load. Sums k upwards, and cuts it nowhere: software
// adapters have few cores, which the long side alone keeps busy.
import { each, times } from './register-tile.ts';
import paramsCode from './tall-params.wgsl?raw';

export type ShortSide = 'rows' | 'columns';

/** Vectors of four that the short side may have. */
export const MOST_SHORT_VECTORS = 4;
/** Invocations of a workgroup, each with a vector of the long side. */
export const TALL_QUAD_WORKGROUP = 8;

/** The whole text, for a short side of so many vectors. */
export function tallQuadCode(short: ShortSide, vectors: number): string {
  const [own, shared] = short === 'rows' ? ['b', 'a'] : ['a', 'b'];
  const sums = times(4 * vectors, (m) => {
    // One expression: see register-tile.ts.
    const added = times(4, (j) => [`shared${Math.floor(m / 4)}_${j}.${'xyzw'[m % 4]}`, `own${j}`] as const);
    const sum = added.reduce((before, [factor, vector]) => `fma(vec4f(${factor}), ${vector}, ${before})`, `s${m}`);
    return `s${m} = ${sum};`;
  });
  const stores =
    short === 'rows'
      ? times(4 * vectors, (m) => `store(${m}u * width + column, s${m});`)
      : times(4, (e) =>
          each(vectors, (v) => {
            const turned = times(4, (j) => `s${4 * v + j}.${'xyzw'[e]}`).join(', ');
            return `store((4u * column + ${e}u) * ${vectors}u + ${v}u, vec4f(${turned}));`;
          }),
        );
  return `${paramsCode}@group(0) @binding(1) var<storage, read_write> a: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> b: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> c: array<vec4f>;

fn store(at: u32, sum: vec4f) {
  if (params.accumulate != 0u) {
    c[at] += params.alpha * sum;
  } else {
    c[at] = params.alpha * sum;
  }
}

@compute @workgroup_size(${TALL_QUAD_WORKGROUP})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) local: u32) {
  // Vectors of four of the long side, and the one that is kept here; beyond the end the last is read, and not stored.
  let width = params.${short === 'rows' ? 'columns' : 'rows'} / 4u;
  let place = (wg.y * groups.x + wg.x) * ${TALL_QUAD_WORKGROUP}u + local;
  let column = min(place, width - 1u);
  let quad = local % 4u;
  let last = params.inner - 1u;
  ${each(4 * vectors, (m) => `var s${m} = vec4f();`)}
  for (var k = 0u; k < params.inner; k += 4u) {
    let read = min(k + quad, last) * ${vectors}u;
    ${each(vectors, (v) => `let read${v} = ${shared}[read + ${v}u];`)}
    ${times(4, (j) => each(vectors, (v) => `let shared${v}_${j} = quadBroadcast(read${v}, ${j}u);`)).join('\n    ')}
    // Steps beyond the end add nothing.
    let own0 = ${own}[k * width + column];
    ${each(3, (j) => `let own${j + 1} = select(vec4f(), ${own}[min(k + ${j + 1}u, last) * width + column], k + ${j + 1}u <= last);`)}
    ${sums.join('\n    ')}
  }
  if (place >= width) {
    return;
  }
  ${stores.join('\n  ')}
}
`;
}
