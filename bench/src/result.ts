// What one run of the bench measured, before anyone judges it. Plain data: it crosses from the page to Node as JSON.
import type { Timing } from './measure.ts';

/** Adapters that have gates of their own. */
export type AdapterClass = 'lavapipe' | 'swiftshader' | 'gpu';

export interface AdapterFacts {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  readonly features: readonly string[];
  readonly class: AdapterClass | 'other-software';
}

export interface Peaks {
  /** 10⁹ float32 operations a second. */
  readonly gflops: number;
  /** 10⁹ bytes a second, reads and writes together. */
  readonly gigabytes: number;
  /** 10⁹ bytes a second that kernels load from a cache; null where not measured. */
  readonly loadGigabytes: number | null;
  /** Operations in float16; null where not offered or not measured. */
  readonly f16Gflops: number | null;
  /** 10⁹ exponentials a second; null where not measured. */
  readonly gigaexps: number | null;
}

export type Group =
  | 'matmul'
  | 'ablation'
  | 'model-matmul'
  | 'lora'
  | 'quantised'
  | 'attention'
  | 'pointwise'
  | 'moves'
  | 'decode'
  | 'step'
  | 'first-step';

/** What a kernel may be held to: the measured peak of what bounds it. */
export type Yardstick = 'f32' | 'copy' | 'exp';

/** One thing measured, ours first and the peers after. */
export interface Measurement {
  readonly id: string;
  readonly group: Group;
  readonly what: string;
  readonly timings: readonly Timing[];
  /** Of one run, by the kernels' own account or the model's. */
  readonly flops: number;
  /** That must move in one run at least; 0 where it says nothing. */
  readonly bytes: number;
  /** Exponentials of one run. */
  readonly exps: number;
  /** Peaks measured in turns with it, 10⁹ a second: they tell a machine that is slower for a while. */
  readonly yardsticks: Readonly<Partial<Record<Yardstick, number>>>;
  /** Beside times: tokens, submits, encodeMs, lossGap … */
  readonly facts: Readonly<Record<string, number>>;
}

export interface SuiteResult {
  readonly adapter: AdapterFacts;
  readonly peaks: Peaks;
  /** With versions; ours first. */
  readonly libraries: readonly string[];
  readonly measurements: readonly Measurement[];
  readonly seconds: number;
}

/** What is to be measured. Crosses into the page as JSON. */
export interface SuiteOptions {
  readonly quick: boolean;
  /** Keeps measurements whose id contains one of these; all when empty. */
  readonly only: readonly string[];
  /** Nothing begins after this many seconds. */
  readonly deadlineSeconds: number;
}

const NAMES: readonly [RegExp, AdapterFacts['class']][] = [
  [/swiftshader/i, 'swiftshader'],
  [/llvmpipe|lavapipe/i, 'lavapipe'],
];

/** Which gates an adapter has, by its names. */
export function classOf(
  names: Pick<AdapterFacts, 'vendor' | 'architecture' | 'device' | 'description'>,
  software: boolean,
): AdapterFacts['class'] {
  const text = [names.vendor, names.architecture, names.device, names.description].join(' ');
  return NAMES.find(([pattern]) => pattern.test(text))?.[1] ?? (software ? 'other-software' : 'gpu');
}
