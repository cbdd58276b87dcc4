// What this device reaches at best, measured: the yardstick for a kernel's share of it. A sweep of small kernels, of which
// the fastest counts, since what suits one device slows another down. Wall-clock time, so that devices without timestamp
// queries are measured too.
import { type Arena, ArenaPlan } from './arena.ts';
import { foldWorkgroups, type KernelCall } from './call.ts';
import type { Gpu } from './device.ts';
import { compileCalls, type Plan, PlanRecorder } from './plan.ts';
import arithmeticCode from './roofline.wgsl?raw';
import copyCode from './roofline-copy.wgsl?raw';
import loadCode from './roofline-load.wgsl?raw';
import { canRun, layOutParams, type ShaderSource } from './shader.ts';
import type { Tensor } from './tensor.ts';

/** One variant of the sweep. */
export interface PeakSample {
  readonly measure: 'f32' | 'f16' | 'copy' | 'load' | 'exp';
  /** Such as `vec4 × 8, 64 a workgroup`: type, chains, invocations. */
  readonly variant: string;
  /** 10⁹ operations, bytes or exponentials a second. */
  readonly rate: number;
}

export interface MeasuredPeaks {
  /** 10⁹ float32 operations a second; a multiply-add is two. */
  readonly gflops: number;
  /** The same in float16; null where the device has no `shader-f16`. */
  readonly f16Gflops: number | null;
  /** 10⁹ bytes a second, reads and writes together, between places larger than caches. */
  readonly gigabytes: number;
  /** 10⁹ bytes a second that kernels load where all is in a cache: what bounds products on adapters that pay for loads. */
  readonly loadGigabytes: number;
  /** 10⁹ float32 exponentials a second. */
  readonly gigaexps: number;
  /** Everything that was tried. */
  readonly sweep: readonly PeakSample[];
}

type Scalar = 'f32' | 'f16';
/** Numbers at a time: a scalar, a vector, a matrix. */
type Lanes = 1 | 4 | 16;

const valueType = (scalar: Scalar, lanes: Lanes): string =>
  lanes === 1 ? scalar : lanes === 4 ? `vec4<${scalar}>` : `mat4x4<${scalar}>`;

interface Arithmetic {
  readonly scalar: Scalar;
  readonly lanes: 1 | 4;
  /** Of a workgroup. */
  readonly invocations: number;
  /** Entry points, by the number of their chains. */
  readonly chains: readonly number[];
  readonly shader: ShaderSource;
}

const totalCode = (lanes: 1 | 4): string =>
  `fn total(v: Value) -> f32 { return ${lanes === 1 ? 'f32(v)' : 'f32((v.x + v.y) + (v.z + v.w))'}; }`;

function arithmetic(scalar: Scalar, lanes: 1 | 4, invocations: number, chains: readonly number[]): Arithmetic {
  const shader: ShaderSource = {
    name: `roofline-${scalar}x${lanes}-${invocations}`,
    code: `alias Scalar = ${scalar};
alias Value = ${valueType(scalar, lanes)};
const INVOCATIONS = ${invocations}u;
${totalCode(lanes)}
${arithmeticCode}`,
    ...(scalar === 'f16' ? { enables: ['f16'] } : {}),
  };
  return { scalar, lanes, invocations, chains, shader };
}

const ARITHMETIC: readonly Arithmetic[] = ([1, 4] as const).flatMap((lanes) => [
  arithmetic('f32', lanes, 64, [2, 4, 8]),
  arithmetic('f32', lanes, 256, [4]),
  arithmetic('f16', lanes, 64, [4, 8]),
]);

interface Copy {
  readonly lanes: Lanes;
  /** Elements of an invocation. */
  readonly each: number;
  readonly entryPoint: 'copy' | 'copy_four';
}

const COPIES: readonly Copy[] = [
  { lanes: 1, each: 1, entryPoint: 'copy' },
  { lanes: 1, each: 4, entryPoint: 'copy_four' },
  { lanes: 4, each: 1, entryPoint: 'copy' },
  { lanes: 4, each: 4, entryPoint: 'copy_four' },
  { lanes: 4, each: 64, entryPoint: 'copy' },
  { lanes: 16, each: 8, entryPoint: 'copy' },
  { lanes: 16, each: 64, entryPoint: 'copy' },
];

const copyShader = (lanes: Lanes): ShaderSource => ({
  name: `roofline-copy-x${lanes}`,
  code: `alias Value = ${valueType('f32', lanes)};\n${copyCode}`,
});
const COPY_SHADERS: Readonly<Record<Lanes, ShaderSource>> = { 1: copyShader(1), 4: copyShader(4), 16: copyShader(16) };

const loadShader = (lanes: 1 | 4): ShaderSource => ({
  name: `roofline-load-x${lanes}`,
  code: `alias Value = ${valueType('f32', lanes)};\n${totalCode(lanes)}\n${loadCode}`,
});
const LOAD_SHADERS: Readonly<Record<1 | 4, ShaderSource>> = { 1: loadShader(1), 4: loadShader(4) };

export const rooflineShaders: readonly ShaderSource[] = [
  ...ARITHMETIC.map(({ shader }) => shader),
  ...Object.values(COPY_SHADERS),
  ...Object.values(LOAD_SHADERS),
];

/** Enough invocations to fill a large GPU. */
const INVOCATIONS = 2 ** 17;
/** Multiply-adds and exponentials of one loop, over all chains. */
const MULTIPLY_ADDS_A_LOOP = 128;
const EXPONENTIALS_A_LOOP = 8;
/** Values that an invocation reads in one loop. */
const LOADS_A_LOOP = 16;
/** Bytes of each side of a copy: beyond most caches, within a default binding. A slow device copies a quarter of it. */
const COPY_BYTES = 64 * 1024 * 1024;
/** A measurement is as long as this before it is believed, and well below what a watchdog or a user would notice. */
const LONG_ENOUGH_MS = 15;
/** No dispatch is meant to take longer. */
const MOST_MS = 45;
const MOST_WORK = 2 ** 20;
/** The fastest so many of a sweep run so often again. */
const FINALISTS = 2;
const REPEATS = 5;

/** One thing to time: loops of a dispatch, or dispatches. */
interface Probe extends Omit<PeakSample, 'rate'> {
  readonly unit: 'loop' | 'dispatch';
  readonly call: KernelCall;
  /** Operations, exponentials or bytes of a unit. */
  readonly amount: number;
  /** Takes the place of this one where it does not take too long; four times as large. */
  readonly larger?: Probe;
}

interface Places {
  readonly x: Tensor;
  readonly out: Tensor;
  readonly work: Tensor;
}

function describe(shader: ShaderSource, entryPoint: string, bindings: Tensor[], count: number, groups: number) {
  const name = `${shader.name}-${entryPoint}`;
  const uniforms = layOutParams(shader, { count });
  return { name, shader, entryPoint, bindings, uniforms, workgroups: foldWorkgroups(groups), flops: 0, bytes: 0 };
}

function arithmeticProbes({ scalar, lanes, invocations, chains, shader }: Arithmetic, { out, work }: Places): Probe[] {
  const probe = (measure: PeakSample['measure'], entryPoint: string, chain: number, aLoop: number): Probe => ({
    measure,
    variant: `${valueType(scalar, lanes)} × ${chain}, ${invocations} a workgroup`,
    unit: 'loop',
    call: describe(shader, entryPoint, [out, work], INVOCATIONS, INVOCATIONS / invocations),
    amount: aLoop * lanes * INVOCATIONS,
  });
  const adds = chains.map((count) => probe(scalar, `multiply_add_${count}`, count, 2 * MULTIPLY_ADDS_A_LOOP));
  const isPlain = scalar === 'f32' && invocations === 64;
  return isPlain ? [...adds, probe('exp', 'exponential', 4, EXPONENTIALS_A_LOOP)] : adds;
}

function copyProbe({ lanes, each, entryPoint }: Copy, { x, out }: Places): Probe {
  const probe = (bytes: number): Probe => {
    const count = bytes / (4 * lanes);
    return {
      measure: 'copy',
      variant: `${valueType('f32', lanes)}, ${each} an invocation, ${bytes / 1024 / 1024} MiB`,
      unit: 'dispatch',
      call: describe(COPY_SHADERS[lanes], entryPoint, [x, out], count, Math.ceil(count / (64 * each))),
      amount: 2 * bytes,
    };
  };
  return { ...probe(COPY_BYTES / 4), larger: probe(COPY_BYTES) };
}

async function allocatePlaces(gpu: Gpu): Promise<{ arena: Arena; places: Places }> {
  const memory = new ArenaPlan();
  const refs = {
    x: memory.tensor('copy from', [COPY_BYTES / 4]),
    out: memory.tensor('copy to', [COPY_BYTES / 4]),
    work: memory.tensor('loops', [1], 'u32'),
  };
  const arena = await memory.allocate(gpu);
  return { arena, places: { x: arena.get(refs.x), out: arena.get(refs.out), work: arena.get(refs.work) } };
}

const loadProbe = (lanes: 1 | 4, { x, out, work }: Places): Probe => ({
  measure: 'load',
  variant: valueType('f32', lanes),
  unit: 'loop',
  call: describe(LOAD_SHADERS[lanes], 'load', [x, out, work], INVOCATIONS, INVOCATIONS / 64),
  amount: LOADS_A_LOOP * 4 * lanes * INVOCATIONS,
});

const probesOf = (gpu: Gpu, places: Places): Probe[] => [
  ...ARITHMETIC.filter(({ shader }) => canRun(gpu, shader)).flatMap((each) => arithmeticProbes(each, places)),
  ...COPIES.map((each) => copyProbe(each, places)),
  ...([1, 4] as const).map((lanes) => loadProbe(lanes, places)),
];

/** Throws GpuError 'out-of-memory' where 128 MiB cannot be had, or 'device-lost'. */
export async function measurePeaks(gpu: Gpu): Promise<MeasuredPeaks> {
  const { arena, places } = await allocatePlaces(gpu);
  const plans: Plan[] = [];
  try {
    const probes = probesOf(gpu, places);
    await compileCalls(
      gpu,
      probes.map(({ call }) => call),
    );
    const time = stopwatch(gpu);
    const idle = Math.min(await time(() => undefined), await time(() => undefined));
    const measure = async (probe: Probe): Promise<Run> => {
      const recorder = new PlanRecorder(gpu);
      recorder.call(probe.call);
      const plan = await recorder.finish();
      plans.push(plan);
      const run = (units: number) =>
        time(() => {
          if (probe.unit === 'loop') arena.write(places.work, Uint32Array.of(units));
          for (let i = 0; i < (probe.unit === 'loop' ? 1 : units); i += 1) plan.run();
        });
      // A driver may compile now; the first run tells nothing.
      await run(1);
      if (probe.larger && 4 * (await run(1)) < MOST_MS) return await measure(probe.larger);
      const { units, milliseconds } = await enoughWork(run);
      const rate = (ms: number) => (units * probe.amount) / (1e6 * Math.max(ms - idle, ms / 2));
      return { probe, rate: rate(milliseconds), again: async () => rate(await run(units)) };
    };
    const runs: Run[] = [];
    for (const probe of probes) runs.push(await measure(probe));
    return {
      gflops: await best(runs, 'f32'),
      f16Gflops: gpu.features.has('shader-f16') ? await best(runs, 'f16') : null,
      gigabytes: await best(runs, 'copy'),
      loadGigabytes: await best(runs, 'load'),
      gigaexps: await best(runs, 'exp'),
      sweep: runs.map(({ probe: { measure: of, variant }, rate }) => ({ measure: of, variant, rate })),
    };
  } finally {
    for (const plan of plans) plan.destroy();
    arena.destroy();
  }
}

/** The fastest kernel of a sweep, to be timed beside other work: a machine that is slower for a while slows both. */
export interface PeakProbe {
  /** Operations, bytes or exponentials of one run, which takes some hundredths of a second. */
  readonly amount: number;
  /** Resolves when the GPU has done it. */
  run(): Promise<void>;
}

export interface PeakProbes extends Readonly<Record<'f32' | 'copy' | 'exp', PeakProbe>> {
  destroy(): void;
}

/** The probes behind these peaks of this device. Throws as {@link measurePeaks} does. */
export async function openPeakProbes(gpu: Gpu, { sweep }: MeasuredPeaks): Promise<PeakProbes> {
  const { arena, places } = await allocatePlaces(gpu);
  const plans: Plan[] = [];
  const destroy = () => {
    for (const plan of plans) plan.destroy();
    arena.destroy();
  };
  const open = async (measure: PeakSample['measure']): Promise<PeakProbe> => {
    const [fastest] = sweep.filter((sample) => sample.measure === measure).sort((a, b) => b.rate - a.rate);
    const probe = probesOf(gpu, places)
      .flatMap(({ larger, ...plain }) => (larger ? [plain, larger] : [plain]))
      .find((each) => each.measure === measure && each.variant === fastest?.variant);
    if (!probe || !fastest) throw new RangeError(`No kernel of this device's sweep measures ${measure}.`);
    const recorder = new PlanRecorder(gpu);
    recorder.call(probe.call);
    const plan = await recorder.finish();
    plans.push(plan);
    const units = Math.max(1, Math.ceil((LONG_ENOUGH_MS * fastest.rate * 1e6) / probe.amount));
    const time = stopwatch(gpu);
    return {
      amount: units * probe.amount,
      async run() {
        await time(() => {
          if (probe.unit === 'loop') arena.write(places.work, Uint32Array.of(units));
          for (let i = 0; i < (probe.unit === 'loop' ? 1 : units); i += 1) plan.run();
        });
      },
    };
  };
  try {
    return { f32: await open('f32'), copy: await open('copy'), exp: await open('exp'), destroy };
  } catch (error) {
    destroy();
    throw error;
  }
}

interface Run {
  readonly probe: Probe;
  /** Best so far, 10⁹ a second. */
  rate: number;
  again(): Promise<number>;
}

/** The best rate of a measure. The fastest few run again: whatever else the machine does can only slow a run down. */
async function best(runs: readonly Run[], measure: PeakSample['measure']): Promise<number> {
  const tried = runs.filter(({ probe }) => probe.measure === measure).sort((a, b) => b.rate - a.rate);
  const finalists = tried.slice(0, FINALISTS);
  for (let i = 0; i < REPEATS; i += 1) for (const run of finalists) run.rate = Math.max(run.rate, await run.again());
  return Math.max(...finalists.map(({ rate }) => rate));
}

/** Milliseconds from the first of these submits until all is done. */
const stopwatch =
  (gpu: Gpu) =>
  async (submit: () => void): Promise<number> => {
    const began = performance.now();
    submit();
    await gpu.device.queue.onSubmittedWorkDone();
    return performance.now() - began;
  };

/** As many units of work as take long enough to be timed, and the shorter of two times they took. */
async function enoughWork(run: (units: number) => Promise<number>): Promise<{ units: number; milliseconds: number }> {
  let units = 1;
  let milliseconds = await run(units);
  while (milliseconds < LONG_ENOUGH_MS && units < MOST_WORK) {
    const factor = Math.max(2, Math.min(16, (1.2 * LONG_ENOUGH_MS) / Math.max(milliseconds, 0.01)));
    units = Math.min(MOST_WORK, Math.ceil(units * factor));
    milliseconds = await run(units);
  }
  return { units, milliseconds: Math.min(milliseconds, await run(units)) };
}
