// Our own libraries behind the same interface as the others. A product is a plan of one call, a step is the trainer's.
import { adaptedMatrices, type Gpu, GpuModel, openGpu, plainSpec, StepGraph } from '@weft/trainer';
import { ArenaPlan, matmulNN, matmulNT, type Plan, PlanRecorder, tuneVariants } from '@weft/wgsl-kernels';
import { baseModel, batchOf, hyperAt, type StepData } from '../workload.ts';
import type { Library, MatmulShape, StepRunner } from './peer.ts';

export interface Weft extends Library {
  readonly gpu: Gpu;
  /** What a step needs on the GPU before it is prepared: the model. */
  load(data: StepData): Promise<GpuModel>;
  /** Prepares a step on a loaded model, which it destroys when it is destroyed. */
  stepOf(model: GpuModel, data: StepData): Promise<StepRunner>;
}

/** Ours, on a device of its own that tunes itself and remembers nothing. Throws GpuError. */
export async function openWeft(entry: GPU | undefined): Promise<Weft> {
  const gpu = await openGpu(entry);
  await tuneVariants(gpu, null);
  const load = (data: StepData) => GpuModel.upload(gpu, baseModel(data));
  return {
    name: 'weft',
    gpu,
    load,
    stepOf: (model, data) => stepOf(gpu, model, data),
    matmul: (shape, a, b) => matmul(gpu, shape, a, b),
    step: async (data) => stepOf(gpu, await load(data), data),
    close() {
      gpu.destroy();
      return Promise.resolve();
    },
  };
}

async function matmul(gpu: Gpu, { kind, rows, columns, inner }: MatmulShape, a: Float32Array, b: Float32Array) {
  const memory = new ArenaPlan();
  const refs = {
    a: memory.tensor('a', [rows, inner]),
    b: memory.tensor('b', kind === 'NT' ? [columns, inner] : [inner, columns]),
    c: memory.tensor('c', [rows, columns]),
  };
  const arena = await memory.allocate(gpu);
  let plan: Plan | null = null;
  const destroy = () => {
    plan?.destroy();
    arena.destroy();
  };
  try {
    arena.write(arena.get(refs.a), a);
    arena.write(arena.get(refs.b), b);
    const recorder = new PlanRecorder(gpu);
    recorder.call(...arena.bind(kind === 'NT' ? matmulNT(refs) : matmulNN(refs)));
    const made = await recorder.finish();
    plan = made;
    return {
      async run(times: number) {
        for (let i = 0; i < times; i += 1) made.run();
        await gpu.device.queue.onSubmittedWorkDone();
      },
      async read() {
        made.run();
        return await arena.read(arena.get(refs.c));
      },
      destroy,
    };
  } catch (error) {
    destroy();
    throw error;
  }
}

async function stepOf(gpu: Gpu, model: GpuModel, data: StepData): Promise<StepRunner> {
  const { workload, adapter } = data;
  const { config, batch, sequence, rank } = workload;
  const matrices = adaptedMatrices(config, plainSpec(rank));
  const graph = await StepGraph.create(model, matrices, { batch, sequence }, { training: true });
  graph.loadAdapter(adapter);
  const rows = batchOf(data);
  let count = 0;
  return {
    async step() {
      count += 1;
      const { loss } = await graph.run([rows], hyperAt(count));
      // The result may come back before the update is done.
      await gpu.device.queue.onSubmittedWorkDone();
      return loss;
    },
    destroy() {
      graph.destroy();
      model.destroy();
    },
  };
}
