// How much of the device's measured peak the matrix products of a LoRA layer reach. Run by `npm run bench`; prints the
// adapter's name, since a speed means nothing without it. Arguments keep the lines whose names contain one of them.
import { nodeGpu } from '../../node.ts';
import { ArenaPlan } from '../../runtime/arena.ts';
import { openGpu } from '../../runtime/device.ts';
import { type KernelCall, PlanRecorder } from '../../runtime/plan.ts';
import { measurePeaks } from '../../runtime/roofline.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import { WEIGHT_TYPES, type WeightType } from '../../weights/encode.ts';
import { bindWeight, planWeight, type WeightMatrix } from '../../weights/weight-matrix.ts';
import { matmulTN } from './matmul.ts';
import { weightNN, weightNT } from './weight-matmul.ts';

type Kind = 'NT' | 'NN' | 'TN';

// [M, N, K] of c [M, N] summed over K, for 1024 tokens: stories260K (64 and 172 wide, vocabulary 512), babyllama-105 (128
// and 352 wide), and products with LoRA factors of rank 4 and 16.
const cases: [what: string, kind: Kind, rows: number, columns: number, inner: number, types?: readonly WeightType[]][] =
  [
    ['q projection', 'NT', 1024, 64, 64],
    ['up projection', 'NT', 1024, 172, 64],
    ['down projection', 'NT', 1024, 64, 172],
    ['head', 'NT', 1024, 512, 64],
    ['up projection, wider', 'NT', 1024, 352, 128, WEIGHT_TYPES],
    ['x·Aᵀ, rank 4', 'NT', 1024, 4, 64],
    ['x·Aᵀ, rank 16', 'NT', 1024, 16, 128],
    ['xa·Bᵀ, rank 4', 'NT', 1024, 172, 4],
    ['xa·Bᵀ, rank 16', 'NT', 1024, 352, 16],
    ['dx of up', 'NN', 1024, 64, 172],
    ['dx of up, wider', 'NN', 1024, 128, 352, WEIGHT_TYPES],
    ['dx of head', 'NN', 1024, 64, 512],
    ['dxa, rank 4', 'NN', 1024, 4, 172],
    ['dxa, rank 16', 'NN', 1024, 16, 352],
    ['dxa·A, rank 4', 'NN', 1024, 64, 4],
    ['dA, rank 4', 'TN', 4, 64, 1024],
    ['dA, rank 16', 'TN', 16, 128, 1024],
    ['dB, rank 4', 'TN', 172, 4, 1024],
    ['dB, rank 16', 'TN', 352, 16, 1024],
  ];

function call(kind: Kind, a: Tensor, b: Tensor, c: Tensor, w: WeightMatrix): KernelCall[] {
  if (kind === 'NT') return weightNT({ x: a, w, y: c });
  return kind === 'NN' ? weightNN({ dy: a, w, dx: c }) : matmulTN({ a, b, c });
}

const REPEATS = 10;
const RUNS = 12;

const wanted = process.argv.slice(2);
const gpu = await openGpu(nodeGpu());
const { vendor, architecture, description } = gpu.adapter;
const peaks = await measurePeaks(gpu);
console.log(`${vendor} ${architecture} (${description})`);
console.log(`measured peaks: ${peaks.gflops.toFixed(1)} GFLOP/s, ${peaks.gigabytes.toFixed(1)} GB/s\n`);
console.log('product                 kind  b    [M, N, K]             ms  GFLOP/s  of peak');
for (const [what, kind, rows, columns, inner, types = ['f32' as const]] of cases) {
  if (wanted.length > 0 && !wanted.some((name) => what.includes(name))) continue;
  for (const type of types) {
    const memory = new ArenaPlan();
    const a = memory.tensor('a', kind === 'TN' ? [inner, rows] : [rows, inner]);
    const sizes = kind === 'NT' ? ([columns, inner] as const) : ([inner, columns] as const);
    const refs = planWeight(memory, 'b', sizes, type, gpu.limits.maxStorageBufferBindingSize);
    const c = memory.tensor('c', [rows, columns]);
    const arena = await memory.allocate(gpu);
    const w = bindWeight(refs, arena);
    const b = w.parts[0]?.data;
    if (!b) throw new Error('A weight has at least one part.');
    const recorder = new PlanRecorder(gpu);
    for (let i = 0; i < REPEATS; i += 1) recorder.call(...call(kind, arena.get(a), b, arena.get(c), w));
    const plan = await recorder.finish();
    let best = Number.POSITIVE_INFINITY;
    for (let run = 0; run < RUNS; run += 1) {
      const began = performance.now();
      plan.run();
      await gpu.device.queue.onSubmittedWorkDone();
      best = Math.min(best, performance.now() - began);
    }
    const gflops = plan.flops / best / 1e6;
    const columnsOf = [
      what.padEnd(22),
      `  ${kind}  `,
      `  ${type}  `,
      `[${rows}, ${columns}, ${inner}]`.padEnd(16),
      (best / REPEATS).toFixed(3).padStart(8),
      gflops.toFixed(2).padStart(9),
      `${((100 * gflops) / peaks.gflops).toFixed(1)} %`.padStart(9),
    ];
    console.log(columnsOf.join(''));
    plan.destroy();
    arena.destroy();
  }
}
gpu.destroy();
