// Single kernels of ours at the sizes of real steps: products of the model, LoRA products, quantised weights, attention, and
// the passes that memory or exponentials bound. No peer has them apart, so each is held to the measured peaks.
import { type Gpu, WEIGHT_TYPES, type WeightType } from '@weft/trainer';
import {
  ADAMW_HYPER_SIZE,
  type Arena,
  ArenaPlan,
  adamw,
  adamwHyper,
  attentionBackward,
  attentionForward,
  bindWeight,
  columnLists,
  crossEntropy,
  type KernelCall,
  linearLoraForward,
  matmulNN,
  matmulNT,
  matmulTN,
  type Plan,
  PlanRecorder,
  planWeight,
  rmsNormBackward,
  rmsNormForward,
  sparseBackward,
  sparseForward,
  swigluBackward,
  swigluForward,
  type TensorRef,
  weightNN,
  weightNT,
  weightOf,
  writeWeightRows,
} from '@weft/wgsl-kernels';
import type { Contender } from '../measure.ts';
import type { Group } from '../result.ts';
import { hyperAt } from '../workload.ts';
import { type Context, kernelEffort, measure } from './context.ts';
import { filled } from './fill.ts';
import { movesOf } from './moves.ts';

interface KernelCase {
  readonly id: string;
  readonly group: Group;
  readonly what: string;
  /** Exponentials an element-wise pass cannot do without; the calls' own account where they give one. */
  readonly exps?: number;
  /** Plans tensors and describes the calls; `fill` writes what zeros will not do for. */
  readonly build: (memory: ArenaPlan, gpu: Gpu) => { calls: KernelCall[]; fill?: (arena: Arena, gpu: Gpu) => void };
}

/** Tokens of a step of S15. */
const ROWS = 256;

function product(
  id: string,
  group: Group,
  what: string,
  kind: 'NT' | 'NN' | 'TN',
  [rows, columns, inner]: [number, number, number],
): KernelCase {
  return {
    id,
    group,
    what: `${what}: ${kind} [${rows}, ${columns}, ${inner}]`,
    build(memory) {
      const a = memory.tensor('a', kind === 'TN' ? [inner, rows] : [rows, inner]);
      const b = memory.tensor('b', kind === 'NT' ? [columns, inner] : [inner, columns]);
      const c = memory.tensor('c', [rows, columns]);
      const calls =
        kind === 'NT' ? matmulNT({ a, b, c }) : kind === 'NN' ? matmulNN({ a, b, c }) : matmulTN({ a, b, c });
      return { calls, fill: fillAll([a, b]) };
    },
  };
}

const fillAll = (refs: readonly TensorRef[]) => (arena: Arena) => {
  for (const [i, ref] of refs.entries()) arena.write(arena.get(ref), filled(ref.elements, i));
};

const modelProducts: KernelCase[] = [
  ['q', 288, 288],
  ['gate', 768, 288],
  ['down', 288, 768],
  ['head-4k', 4_096, 288],
  ['head-32k', 32_000, 288],
].flatMap(([name, out, columns]) => [
  product(`s15-${name}-forward`, 'model-matmul', `S15 ${name} forward`, 'NT', [ROWS, Number(out), Number(columns)]),
  product(`s15-${name}-dx`, 'model-matmul', `S15 ${name} dX`, 'NN', [ROWS, Number(columns), Number(out)]),
]);

/** Tokens of a step of S0.26. */
const SMALL_ROWS = 1024;

const smallProducts: KernelCase[] = [
  product('s026-gate-forward', 'model-matmul', 'S0.26 gate forward', 'NT', [SMALL_ROWS, 172, 64]),
  product('s026-gate-dx', 'model-matmul', 'S0.26 gate dX', 'NN', [SMALL_ROWS, 64, 172]),
];

/** The columns that a tile of NN reads lie on as many pages of memory as there are steps of k, or on half as many. */
const pagedProducts: KernelCase[] = [512, 1024].map((columns) =>
  product(`pages-nn-${columns}`, 'ablation', `rows of ${columns * 4} bytes`, 'NN', [2048, columns, 2048]),
);

const loraProducts: KernelCase[] = [
  product('lora-xa', 'lora', 'x·Aᵀ, rank 8', 'NT', [ROWS, 8, 288]),
  product('lora-up', 'lora', 'xa·Bᵀ, rank 8', 'NT', [ROWS, 768, 8]),
  product('lora-dxa', 'lora', 'dy·B, rank 8', 'NN', [ROWS, 8, 768]),
  product('lora-dx', 'lora', 'dxa·A, rank 8', 'NN', [ROWS, 288, 8]),
  product('lora-da', 'lora', 'dA, rank 8', 'TN', [8, 288, ROWS]),
  product('lora-db', 'lora', 'dB, rank 8', 'TN', [768, 8, ROWS]),
  {
    id: 'lora-linear',
    group: 'lora',
    what: `S15 gate with its LoRA branch: [${ROWS}, 768, 288], rank 8`,
    build(memory) {
      const [x, weight, y] = [
        memory.tensor('x', [ROWS, 288]),
        memory.tensor('w', [768, 288]),
        memory.tensor('y', [ROWS, 768]),
      ];
      const [a, b, xa] = [memory.tensor('a', [8, 288]), memory.tensor('b', [768, 8]), memory.tensor('xa', [ROWS, 8])];
      const calls = linearLoraForward({ x, w: weightOf(weight), y, a, b, xa }, { scale: 2 });
      return { calls, fill: fillAll([x, weight, a, b]) };
    },
  },
];

/** Elements of a row of the sparse branch: a tenth. */
const SPARSE_PER_ROW = 29;

const sparseProducts = (['forward', 'dx', 'dvalues'] as const).map(
  (direction): KernelCase => ({
    id: `sparse-${direction}`,
    group: 'lora',
    what: `S15 gate, sparse branch, ${direction}: [${ROWS}, 768, 288], ${SPARSE_PER_ROW} elements a row`,
    build(memory) {
      const columns = Uint32Array.from(
        { length: 768 * SPARSE_PER_ROW },
        (_, k) => (k % SPARSE_PER_ROW) * 9 + (Math.floor(k / SPARSE_PER_ROW) % 9),
      );
      const lists = columnLists(columns, 288);
      const places = {
        columns: memory.tensor('columns', [768, SPARSE_PER_ROW], 'u32'),
        starts: memory.tensor('starts', [289], 'u32'),
        entries: memory.tensor('entries', [columns.length], 'u32'),
      };
      const [x, y] = [memory.tensor('x', [ROWS, 288]), memory.tensor('y', [ROWS, 768])];
      const values = memory.tensor('values', [768, SPARSE_PER_ROW]);
      const gradient =
        direction === 'dx'
          ? { dx: memory.tensor('dx', [ROWS, 288]) }
          : { dvalues: memory.tensor('dvalues', [768, SPARSE_PER_ROW]) };
      const calls =
        direction === 'forward'
          ? sparseForward({ x, y, values, places })
          : sparseBackward({ x, dy: y, values, places, ...gradient });
      return {
        calls,
        fill(arena) {
          fillAll([x, y, values])(arena);
          arena.write(arena.get(places.columns), columns);
          arena.write(arena.get(places.starts), lists.starts);
          arena.write(arena.get(places.entries), lists.entries);
        },
      };
    },
  }),
);

/** Width of the matrix that weight types are compared on. */
const QUANTISED = 1024;

const quantisedProducts = (['NT', 'NN'] as const).flatMap((kind) =>
  WEIGHT_TYPES.map(
    (type: WeightType): KernelCase => ({
      id: `weights-${kind.toLowerCase()}-${type}`,
      group: 'quantised',
      what: `${type} weights, ${kind} [${ROWS}, ${QUANTISED}, ${QUANTISED}]`,
      build(memory, gpu) {
        const x = memory.tensor('x', [ROWS, QUANTISED]);
        const y = memory.tensor('y', [ROWS, QUANTISED]);
        const limit = gpu.limits.maxStorageBufferBindingSize;
        const refs = planWeight(memory, 'w', [QUANTISED, QUANTISED], type, limit);
        const w = bindWeight(refs, memory.describe());
        return {
          calls: kind === 'NT' ? weightNT({ x, w, y }) : weightNN({ dy: x, w, dx: y }),
          fill(arena, device) {
            arena.write(arena.get(x), filled(x.elements, 1));
            writeWeightRows(device, bindWeight(refs, arena), 0, filled(QUANTISED * QUANTISED, 2));
          },
        };
      },
    }),
  ),
);

interface AttentionShape {
  readonly batch: number;
  readonly sequence: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
}

function attention(
  name: string,
  what: string,
  { batch, sequence, heads, kvHeads, headSize }: AttentionShape,
): KernelCase[] {
  const rows = batch * sequence;
  const sizes = { heads, kvHeads, headSize, window: null, meanKeys: (sequence + 1) / 2 };
  const spansOf = (of: (n: number, first: number) => [number, number]) =>
    Uint32Array.from(Array.from({ length: rows }, (_, n) => of(n, n - (n % sequence))).flat());
  const build = (direction: 'forward' | 'backward'): KernelCase['build'] => {
    return (memory) => {
      const wide = (tensor: string, count: number) => memory.tensor(tensor, [rows, count * headSize]);
      const [q, k, v] = [wide('q', heads), wide('k', kvHeads), wide('v', kvHeads)];
      const spans = memory.tensor('spans', [rows, 2], 'u32');
      const [out, lse] = [wide('out', heads), memory.tensor('lse', [rows, heads])];
      const writeSpans = (arena: Arena) => {
        fillAll([q, k, v])(arena);
        arena.write(
          arena.get(spans),
          spansOf((n, first) => [first, n]),
        );
      };
      const forward = { q, k, v, spans, out, lse };
      if (direction === 'forward') return { calls: attentionForward(forward, sizes), fill: writeSpans };
      const keySpans = memory.tensor('key spans', [rows, 2], 'u32');
      const [dout, stats] = [wide('dout', heads), memory.tensor('stats', [rows, heads, 2])];
      const [dq, dk, dv] = [wide('dq', heads), wide('dk', kvHeads), wide('dv', kvHeads)];
      return {
        calls: attentionBackward({ ...forward, keySpans, dout, stats, dq, dk, dv }, sizes),
        fill(arena) {
          writeSpans(arena);
          fillAll([dout])(arena);
          arena.write(
            arena.get(keySpans),
            spansOf((n, first) => [n, first + sequence - 1]),
          );
        },
      };
    };
  };
  return (['forward', 'backward'] as const).map((direction) => ({
    id: `attention-${name}-${direction}`,
    group: 'attention',
    what: `${what} ${direction}: ${batch} × ${sequence} tokens, ${heads}/${kvHeads} heads of ${headSize}`,
    build: build(direction),
  }));
}

/** Wide enough that tensors do not stay in caches, as in a step where much lies between two uses. */
const [NORM_ROWS, NORM_WIDTH, ELEMENTS, LOSS_ROWS, VOCABULARY] = [8_192, 512, 2 ** 22, 128, 32_000];

const pointwise: KernelCase[] = [
  {
    id: 'norm-forward',
    group: 'pointwise',
    what: `RMSNorm forward [${NORM_ROWS}, ${NORM_WIDTH}]`,
    build(memory) {
      const [x, y] = [memory.tensor('x', [NORM_ROWS, NORM_WIDTH]), memory.tensor('y', [NORM_ROWS, NORM_WIDTH])];
      const [weight, rstd] = [memory.tensor('weight', [NORM_WIDTH]), memory.tensor('rstd', [NORM_ROWS])];
      return { calls: rmsNormForward({ x, weight, y, rstd }, { eps: 1e-5 }), fill: fillAll([x, weight]) };
    },
  },
  {
    id: 'norm-backward',
    group: 'pointwise',
    what: `RMSNorm backward [${NORM_ROWS}, ${NORM_WIDTH}]`,
    build(memory) {
      const wide = (name: string) => memory.tensor(name, [NORM_ROWS, NORM_WIDTH]);
      const [x, dy, dx] = [wide('x'), wide('dy'), wide('dx')];
      const [weight, rstd] = [memory.tensor('weight', [NORM_WIDTH]), memory.tensor('rstd', [NORM_ROWS])];
      const calls = rmsNormBackward({ x, weight, rstd, dy, dx }, { accumulate: false });
      return { calls, fill: fillAll([x, dy, weight, rstd]) };
    },
  },
  {
    id: 'swiglu-forward',
    group: 'pointwise',
    what: `SwiGLU forward, ${ELEMENTS} elements`,
    exps: ELEMENTS,
    build(memory) {
      const wide = (name: string) => memory.tensor(name, [ELEMENTS / 1024, 1024]);
      const [gate, up, out] = [wide('gate'), wide('up'), wide('out')];
      return { calls: swigluForward({ gate, up, out }), fill: fillAll([gate, up]) };
    },
  },
  {
    id: 'swiglu-backward',
    group: 'pointwise',
    what: `SwiGLU backward, ${ELEMENTS} elements`,
    exps: ELEMENTS,
    build(memory) {
      const wide = (name: string) => memory.tensor(name, [ELEMENTS / 1024, 1024]);
      const [gate, up, dout, dgate, dup] = [wide('gate'), wide('up'), wide('dout'), wide('dgate'), wide('dup')];
      return { calls: swigluBackward({ gate, up, dout, dgate, dup }), fill: fillAll([gate, up, dout]) };
    },
  },
  {
    id: 'cross-entropy',
    group: 'pointwise',
    what: `cross-entropy with its gradient [${LOSS_ROWS}, ${VOCABULARY}]`,
    exps: 2 * LOSS_ROWS * VOCABULARY,
    build(memory) {
      const logits = memory.tensor('logits', [LOSS_ROWS, VOCABULARY]);
      const labels = memory.tensor('labels', [LOSS_ROWS], 'i32');
      const [lossRows, normaliser] = [memory.tensor('loss', [LOSS_ROWS]), memory.tensor('normaliser', [1])];
      return {
        calls: crossEntropy({ logits, labels, lossRows, normaliser }),
        fill(arena) {
          fillAll([logits])(arena);
          arena.write(
            arena.get(labels),
            Int32Array.from({ length: LOSS_ROWS }, (_, i) => i),
          );
          // The gradient overwrites the logits, which the next run takes; multiplied by one it stays of ordinary size.
          arena.write(arena.get(normaliser), Float32Array.of(1));
        },
      };
    },
  },
  {
    id: 'adamw',
    group: 'pointwise',
    what: `AdamW, ${ELEMENTS / 2} parameters`,
    build(memory) {
      const flat = (name: string) => memory.tensor(name, [ELEMENTS / 2]);
      const [param, grad, m, v] = [flat('param'), flat('grad'), flat('m'), flat('v')];
      const hyper = memory.tensor('hyper', [ADAMW_HYPER_SIZE]);
      const norm = memory.tensor('norm', [2]);
      return {
        calls: adamw({ param, grad, m, v, hyper, norm }),
        fill(arena) {
          fillAll([param, grad])(arena);
          arena.write(arena.get(hyper), adamwHyper(hyperAt(1)));
        },
      };
    },
  },
];

/** The element-wise passes again, without their arithmetic. */
const moves: KernelCase[] = pointwise
  .filter(({ id }) => ['swiglu-forward', 'swiglu-backward', 'adamw'].includes(id))
  .map(({ id, what, build }) => ({
    id: `moves-${id}`,
    group: 'moves',
    what: `${what}, without its arithmetic`,
    build(memory, gpu) {
      const { calls, fill } = build(memory, gpu);
      return { calls: calls.flatMap((call) => movesOf(call) ?? []), ...(fill ? { fill } : {}) };
    },
  }));

const CASES: readonly KernelCase[] = [
  ...modelProducts,
  ...smallProducts,
  ...pagedProducts,
  ...loraProducts,
  ...sparseProducts,
  ...quantisedProducts,
  ...attention('s15', 'attention of S15', { batch: 1, sequence: 256, heads: 6, kvHeads: 6, headSize: 48 }),
  ...attention('s026', 'attention of S0.26', { batch: 8, sequence: 128, heads: 8, kvHeads: 4, headSize: 8 }),
  ...pointwise,
  ...moves,
];

/** Of a quick run: what has a gate, and one of each other sort. */
const QUICK = [
  's15-gate',
  's15-head-4k',
  'lora-linear',
  'weights-nt',
  'weights-nn',
  'attention-s15',
  'norm',
  'swiglu',
  'cross-entropy',
  'adamw',
];

/** Calls over tensors planned in `memory`, as a plan of its own. */
export function planContender({
  name,
  gpu,
  memory,
  calls,
  fill,
}: {
  readonly name: string;
  readonly gpu: Gpu;
  readonly memory: ArenaPlan;
  readonly calls: readonly KernelCall[];
  readonly fill?: ((arena: Arena, gpu: Gpu) => void) | undefined;
}): Contender {
  return {
    name,
    async prepare() {
      const arena = await memory.allocate(gpu);
      let plan: Plan | null = null;
      const destroy = () => {
        plan?.destroy();
        arena.destroy();
      };
      try {
        const recorder = new PlanRecorder(gpu);
        recorder.call(...arena.bind(calls));
        const made = await recorder.finish();
        plan = made;
        fill?.(arena, gpu);
        return {
          async run(times: number) {
            for (let i = 0; i < times; i += 1) made.run();
            await gpu.device.queue.onSubmittedWorkDone();
          },
          destroy,
        };
      } catch (error) {
        destroy();
        throw error;
      }
    },
  };
}

export async function kernelCases(context: Context): Promise<void> {
  const { gpu, ours, options } = context;
  for (const each of CASES) {
    if (options.quick && !QUICK.some((start) => each.id.startsWith(start))) continue;
    if (!context.wants(each.id)) continue;
    const memory = new ArenaPlan(Math.min(gpu.limits.maxStorageBufferBindingSize, gpu.limits.maxBufferSize));
    const { calls, fill } = each.build(memory, gpu);
    const sum = (of: (call: KernelCall) => number) => calls.reduce((total, call) => total + of(call), 0);
    const { id, group, what, exps = 0 } = each;
    const described = { id, group, what, flops: sum(({ flops }) => flops), bytes: sum(({ bytes }) => bytes), exps };
    const contender = planContender({ name: ours.name, gpu, memory, calls, fill });
    await measure(context, described, [contender], kernelEffort(options));
  }
}
