// Which variant of a call a device runs. Without tuning it is a guess from what the adapter is; with tuning the variants of
// each class are timed once on the tensors of the first call that is recorded, and the choice is kept. Variants give the
// same results, so a choice changes nothing but time.
import { type KernelCall, type KernelVariant, storageEntries } from './call.ts';
import type { Gpu } from './device.ts';
import { canRun, compileAll } from './shader.ts';

/** Choices of variants by class, kept between sessions for one adapter. */
export interface TuningStore {
  load(adapter: string): Promise<Readonly<Record<string, string>> | undefined>;
  save(adapter: string, choices: Readonly<Record<string, string>>): Promise<void>;
}

interface Tuning {
  readonly store: TuningStore | null;
  readonly choices: Map<string, string>;
}

const tunings = new WeakMap<GPUDevice, Tuning>();

/** Changes whenever variants or classes do, so that choices among others are forgotten. */
const VERSION = 3;

/** Under what choices of this device are kept. */
export const tuningAdapter = ({ adapter }: Gpu): string =>
  [VERSION, adapter.vendor, adapter.architecture, adapter.device, adapter.description].join(' ');

/**
 * From now on plans of this device measure variants, and keep what they learn in `store`; null keeps it for as long as the
 * device lives. Rejects as the store's `load` does.
 */
export async function tuneVariants(gpu: Gpu, store: TuningStore | null): Promise<void> {
  const known = await store?.load(tuningAdapter(gpu));
  tunings.set(gpu.device, { store, choices: new Map(Object.entries(known ?? {})) });
}

/** What is chosen on this device so far, by class; null where nothing is measured. */
export const tunedChoices = (gpu: Gpu): Readonly<Record<string, string>> | null => {
  const tuning = tunings.get(gpu.device);
  return tuning ? Object.fromEntries(tuning.choices) : null;
};

const asCall = (call: KernelCall, { shader, entryPoint, workgroups }: KernelVariant): KernelCall => ({
  ...call,
  shader,
  entryPoint,
  workgroups,
});

/**
 * The variants worth trying on this device: those written for its kind, else all that it can run. The first is the guess
 * where nothing is measured.
 */
function candidatesOf(gpu: Gpu, { variants = [] }: KernelCall): KernelVariant[] {
  const runnable = variants.filter(({ shader }) => canRun(gpu, shader));
  const kind = gpu.adapter.software ? 'software' : 'hardware';
  const size = gpu.subgroups?.smallest ?? 1;
  const suited = runnable.filter(
    ({ suits, subgroup }) => suits === kind && (!subgroup || (size >= subgroup.least && size <= subgroup.most)),
  );
  return suited.length > 0 ? suited : runnable.filter(({ suits = 'any' }) => suits === 'any');
}

/**
 * The calls, each in the variant this device runs. `onProgress` counts classes that have to be measured. Rejects with
 * GpuError 'shader'.
 */
export async function chooseVariants(
  gpu: Gpu,
  calls: readonly KernelCall[],
  onProgress?: (done: number, total: number) => void,
): Promise<KernelCall[]> {
  const tuning = tunings.get(gpu.device);
  if (tuning) {
    // The largest call of a class stands for it: most of the time is spent there.
    const open = new Map<string, KernelCall>();
    for (const call of calls) {
      const { tuningClass, flops } = call;
      if (tuningClass === undefined || (open.get(tuningClass)?.flops ?? -1) >= flops) continue;
      const candidates = candidatesOf(gpu, call);
      const chosen = tuning.choices.get(tuningClass);
      if (candidates.length > 1 && !candidates.some(({ variant }) => variant === chosen)) open.set(tuningClass, call);
    }
    if (open.size > 0) await measureClasses(gpu, tuning, open, onProgress);
  }
  return calls.map((call) => {
    const candidates = candidatesOf(gpu, call);
    const chosen = candidates.find(({ variant }) => variant === tuning?.choices.get(call.tuningClass ?? ''));
    const best = chosen ?? candidates[0];
    return best ? asCall(call, best) : call;
  });
}

async function measureClasses(
  gpu: Gpu,
  { store, choices }: Tuning,
  open: ReadonlyMap<string, KernelCall>,
  onProgress?: (done: number, total: number) => void,
): Promise<void> {
  const candidates = [...open].map(([name, call]) => ({ name, call, variants: candidatesOf(gpu, call) }));
  const keys = candidates.flatMap(({ variants }) =>
    variants.map(({ shader, entryPoint }) => ({ shader, entryPoint, constants: {} })),
  );
  await compileAll(gpu, keys);
  for (const [i, { name, call, variants }] of candidates.entries()) {
    choices.set(name, await fastest(gpu, call, variants));
    onProgress?.(i + 1, candidates.length);
  }
  await store?.save(tuningAdapter(gpu), Object.fromEntries(choices)).catch((error: unknown) => {
    // Not worth ending a training for: they are measured again next time.
    console.warn('Which kernel variants are fastest here could not be kept:', error);
  });
}

/** As many floating-point operations as a slow device does in a few hundredths of a second. */
const TRIAL_FLOPS = 60e6;
/** A trial is repeated until it takes this long, milliseconds. */
const TRIAL_MS = 2;
const TRIALS = 3;

/** Part of the call's workgroups, so that a trial is short on any device; the share of its work with it. */
function trialOf(call: KernelCall): { workgroups: [number, number, number]; share: number } {
  const [x, y, z] = call.workgroups;
  const count = x * y * z;
  const wanted = Math.max(1, Math.min(x, Math.ceil((count * TRIAL_FLOPS) / Math.max(1, call.flops))));
  // Rows of folded workgroups find their place by the number of them in x, so only a plain dispatch can be shortened.
  return y * z > 1 ? { workgroups: [x, y, z], share: 1 } : { workgroups: [wanted, 1, 1], share: wanted / count };
}

/** Times every variant in turns and gives the name of the fastest. Runs them on the call's own tensors. */
async function fastest(gpu: Gpu, call: KernelCall, variants: readonly KernelVariant[]): Promise<string> {
  const uniforms = gpu.createBuffer(
    'trial uniforms',
    call.uniforms.byteLength,
    GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
  );
  gpu.device.queue.writeBuffer(uniforms, 0, call.uniforms);
  const pipelines = await compileAll(
    gpu,
    variants.map(({ shader, entryPoint }) => ({ shader, entryPoint, constants: {} })),
  );
  const trials = variants.map((variant, i) => {
    const pipeline = pipelines[i] as GPUComputePipeline;
    const entries: GPUBindGroupEntry[] = [
      { binding: 0, resource: { buffer: uniforms } },
      ...storageEntries(gpu, asCall(call, variant)),
    ];
    const group = gpu.createBindGroup({ label: call.name, layout: pipeline.getBindGroupLayout(0), entries });
    return {
      variant: variant.variant,
      pipeline,
      group,
      ...trialOf(asCall(call, variant)),
      best: Number.POSITIVE_INFINITY,
    };
  });
  const time = async ({ pipeline, group, workgroups }: (typeof trials)[number], repeats: number): Promise<number> => {
    const began = performance.now();
    const encoder = gpu.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    for (let i = 0; i < repeats; i += 1) pass.dispatchWorkgroups(...workgroups);
    pass.end();
    gpu.submit([encoder.finish()]);
    await gpu.device.queue.onSubmittedWorkDone();
    return performance.now() - began;
  };
  try {
    // The first run of a pipeline pays for the driver's own compiling.
    for (const trial of trials) await time(trial, 1);
    let repeats = 1;
    for (let round = 0; round < TRIALS; round += 1) {
      for (const trial of trials) {
        let milliseconds = await time(trial, repeats);
        while (round === 0 && milliseconds < TRIAL_MS && repeats < 1024) {
          repeats *= 4;
          milliseconds = await time(trial, repeats);
        }
        trial.best = Math.min(trial.best, milliseconds / repeats / trial.share);
      }
    }
    const [first, ...others] = trials;
    return others.reduce((best, trial) => (trial.best < (best?.best ?? 0) ? trial : best), first)?.variant ?? '';
  } finally {
    gpu.destroyBuffer(uniforms);
  }
}
