// How much of the device's measured peak the matrix products of a LoRA layer reach. Run by `npm run bench`; prints the
// adapter's name, since a speed means nothing without it.
import { nodeGpu } from '../../node.ts';
import { ArenaPlan } from '../../runtime/arena.ts';
import { openGpu } from '../../runtime/device.ts';
import { type KernelCall, PlanRecorder } from '../../runtime/plan.ts';
import { measurePeaks } from '../../runtime/roofline.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import { matmulNN, matmulNT, matmulTN } from './matmul.ts';

type Kind = 'NT' | 'NN' | 'TN';

// [M, N, K] of c [M, N] summed over K, for 1024 tokens: stories260K (64 and 172 wide, vocabulary 512), babyllama-105 (128
// and 352 wide), and products with LoRA factors of rank 4 and 16.
const cases: [what: string, kind: Kind, rows: number, columns: number, inner: number][] = [
  ['q projection', 'NT', 1024, 64, 64],
  ['up projection', 'NT', 1024, 172, 64],
  ['down projection', 'NT', 1024, 64, 172],
  ['head', 'NT', 1024, 512, 64],
  ['up projection, wider', 'NT', 1024, 352, 128],
  ['x·Aᵀ, rank 4', 'NT', 1024, 4, 64],
  ['x·Aᵀ, rank 16', 'NT', 1024, 16, 128],
  ['xa·Bᵀ, rank 4', 'NT', 1024, 172, 4],
  ['xa·Bᵀ, rank 16', 'NT', 1024, 352, 16],
  ['dx of up', 'NN', 1024, 64, 172],
  ['dx of up, wider', 'NN', 1024, 128, 352],
  ['dx of head', 'NN', 1024, 64, 512],
  ['dxa, rank 4', 'NN', 1024, 4, 172],
  ['dxa, rank 16', 'NN', 1024, 16, 352],
  ['dxa·A, rank 4', 'NN', 1024, 64, 4],
  ['dA, rank 4', 'TN', 4, 64, 1024],
  ['dA, rank 16', 'TN', 16, 128, 1024],
  ['dB, rank 4', 'TN', 172, 4, 1024],
  ['dB, rank 16', 'TN', 352, 16, 1024],
];

function call(kind: Kind, a: Tensor, b: Tensor, c: Tensor): KernelCall[] {
  if (kind === 'NT') return matmulNT({ a, b, c });
  return kind === 'NN' ? matmulNN({ a, b, c }) : matmulTN({ a, b, c });
}

const REPEATS = 10;
const RUNS = 12;

const gpu = await openGpu(nodeGpu());
const { vendor, architecture, description } = gpu.adapter;
const peaks = await measurePeaks(gpu);
console.log(`${vendor} ${architecture} (${description})`);
console.log(`measured peaks: ${peaks.gflops.toFixed(1)} GFLOP/s, ${peaks.gigabytes.toFixed(1)} GB/s\n`);
console.log('product                 kind  [M, N, K]             ms  GFLOP/s  of peak');
for (const [what, kind, rows, columns, inner] of cases) {
  const memory = new ArenaPlan();
  const a = memory.tensor('a', kind === 'TN' ? [inner, rows] : [rows, inner]);
  const b = memory.tensor('b', kind === 'NT' ? [columns, inner] : [inner, columns]);
  const c = memory.tensor('c', [rows, columns]);
  const arena = await memory.allocate(gpu);
  const recorder = new PlanRecorder(gpu);
  for (let i = 0; i < REPEATS; i += 1) recorder.call(...call(kind, arena.get(a), arena.get(b), arena.get(c)));
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
    `[${rows}, ${columns}, ${inner}]`.padEnd(16),
    (best / REPEATS).toFixed(3).padStart(8),
    gflops.toFixed(2).padStart(9),
    `${((100 * gflops) / peaks.gflops).toFixed(1)} %`.padStart(9),
  ];
  console.log(columnsOf.join(''));
  plan.destroy();
  arena.destroy();
}
gpu.destroy();
