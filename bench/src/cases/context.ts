// What every case is given: the devices that are open, how much effort to spend, and where results go.
import type { Gpu } from '@weft/trainer';
import type { PeakProbes } from '@weft/wgsl-kernels';
import type { Contender, Effort } from '../measure.ts';
import { interleaved } from '../measure.ts';
import type { Library } from '../peers/peer.ts';
import type { Group, Measurement, SuiteOptions, Yardstick } from '../result.ts';

export interface Peer {
  readonly library: Library;
  /** 10⁹ operations a second of its product of 512 × 512 × 512; null before it was measured. */
  gflops: number | null;
}

/** A measurement before its timings. */
export interface Described {
  readonly id: string;
  readonly group: Group;
  readonly what: string;
  readonly flops?: number;
  readonly bytes?: number;
  readonly exps?: number;
}

export interface Context {
  readonly gpu: Gpu;
  readonly ours: Library;
  readonly peers: readonly Peer[];
  readonly options: SuiteOptions;
  readonly probes: PeakProbes;
  /** Whether this id is wanted and there is time left. */
  wants(id: string): boolean;
  progress(text: string): void;
  add(measurement: Measurement): void;
}

/** Of products and single kernels. */
export const kernelEffort = ({ quick }: SuiteOptions): Effort =>
  quick ? { rounds: 3, sampleMs: 60, budgetMs: 4_000 } : { rounds: 7, sampleMs: 120, budgetMs: 15_000 };

/** Of whole steps. Training runs one after another: what the first pays after another library's turn is shared out. */
export const stepEffort = ({ quick }: SuiteOptions): Effort =>
  quick ? { rounds: 3, sampleMs: 500, budgetMs: 40_000 } : { rounds: 5, sampleMs: 1_000, budgetMs: 120_000 };

/** A peer this many times slower at products than the other one is left out of a quick run: it cannot be the better one. */
const HOPELESS = 3;

/**
 * Why a peer is not to do `flops` operations: at its measured rate one run takes longer than the budget, or, in a quick run,
 * the other peer is far faster. undefined where it is to run.
 */
export function reasonToLeaveOut(
  { peers, options }: Pick<Context, 'peers' | 'options'>,
  peer: Peer,
  flops: number,
  budgetMs: number,
): string | undefined {
  if (peer.gflops === null) return undefined;
  const milliseconds = flops / peer.gflops / 1e6;
  if (milliseconds > budgetMs) {
    const rate = `${peer.gflops.toFixed(2)} GFLOP/s`;
    return `left out: at its measured ${rate} one run takes over ${Math.round(milliseconds / 1000)} s`;
  }
  const best = Math.max(...peers.map(({ gflops }) => gflops ?? 0));
  if (options.quick && best > HOPELESS * peer.gflops) {
    return `left out of a quick run: its products are ${(best / peer.gflops).toFixed(1)} times slower than the other peer's`;
  }
  return undefined;
}

/** The yardsticks of a group, by what bounds it. */
const YARDSTICKS: Readonly<Record<Group, readonly Yardstick[]>> = {
  matmul: ['f32'],
  ablation: ['f32'],
  'model-matmul': ['f32'],
  lora: ['f32'],
  quantised: ['f32'],
  attention: ['f32'],
  pointwise: ['copy', 'exp'],
  moves: ['copy'],
  step: ['f32'],
  decode: [],
  'first-step': [],
};

/** The device's peak as a contender of its own. */
function yardstickOf({ probes }: Context, yardstick: Yardstick): Contender {
  const { run } = probes[yardstick];
  return {
    name: `measured peak, ${yardstick}`,
    prepare: () =>
      Promise.resolve({
        async run(times: number) {
          for (let i = 0; i < times; i += 1) await run();
        },
        destroy: () => undefined,
      }),
  };
}

/** Measures and reports. What the group is held to takes turns with the contenders. */
export async function measure(
  context: Context,
  described: Described,
  contenders: readonly Contender[],
  effort: Effort,
  factsOf: () => Record<string, number> = () => ({}),
): Promise<Measurement> {
  const held = YARDSTICKS[described.group];
  const all = await interleaved([...contenders, ...held.map((each) => yardstickOf(context, each))], effort);
  const timings = all.slice(0, contenders.length);
  const rates = held.flatMap((each, i) => {
    const milliseconds = all[contenders.length + i]?.median;
    return milliseconds ? [[each, context.probes[each].amount / milliseconds / 1e6] as const] : [];
  });
  const { flops = 0, bytes = 0, exps = 0, ...rest } = described;
  const yardsticks = Object.fromEntries(rates);
  const measurement: Measurement = { ...rest, flops, bytes, exps, timings, yardsticks, facts: factsOf() };
  const shown = timings.map(({ name, median, error }) =>
    median === null ? `${name}: ${error}` : `${name} ${median >= 100 ? median.toFixed(0) : median.toFixed(2)} ms`,
  );
  context.progress(`${described.id}: ${shown.join(', ')}`);
  context.add(measurement);
  return measurement;
}
