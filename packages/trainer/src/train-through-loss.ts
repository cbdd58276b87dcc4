// Training that outlives its GPU: on a lost device a new one is opened, and training goes on from the last snapshot, with the
// same steps as if nothing had happened.
import type { LoraAdapter } from '@weft/formats';
import { GpuError } from '@weft/wgsl-kernels';
import type { Example } from './data/examples.ts';
import type { StepGraph } from './plan/step.ts';
import type { TrainSnapshot } from './snapshot.ts';
import { type TrainHooks, type TrainOutcome, type TrainSettings, train } from './train.ts';

/** Milliseconds between snapshots: what a loss may cost. */
const SNAPSHOT_MS = 10_000;

/** Losses in one training after which the device is not worth another try. */
const MOST_LOSSES = 3;

export interface LossHooks extends TrainHooks {
  /** Losses after which training gives up; 3 unless given. */
  readonly mostLosses?: number;
  /** Told of a loss that training goes on after. */
  onLost?(error: GpuError): void;
}

const isLoss = (error: unknown): error is GpuError => error instanceof GpuError && error.code === 'device-lost';

/**
 * {@link train} on a graph made by `makeGraph`, which is called again, for a graph on a new device, after a loss. Rejects
 * with GpuError 'device-lost' after several losses, and as {@link train} does.
 */
export async function trainThroughLoss(
  makeGraph: (afterLoss: boolean) => Promise<StepGraph>,
  start: LoraAdapter | TrainSnapshot,
  rows: readonly (readonly Example[])[],
  settings: TrainSettings,
  hooks: LossHooks = {},
): Promise<TrainOutcome> {
  let from = start;
  for (let losses = 0; ; ) {
    const graph = await makeGraph(losses > 0);
    try {
      return await train(graph, from, rows, settings, {
        ...hooks,
        snapshotMs: hooks.snapshotMs ?? SNAPSHOT_MS,
        async onSnapshot(snapshot) {
          from = snapshot;
          await hooks.onSnapshot?.(snapshot);
        },
      });
    } catch (error) {
      losses += 1;
      if (!isLoss(error) || losses > (hooks.mostLosses ?? MOST_LOSSES)) throw error;
      hooks.onLost?.(error);
    }
  }
}
