// Learning rate by step: linear warm-up, then constant, linear or cosine decay to zero.

export type ScheduleName = 'constant' | 'linear' | 'cosine';

export interface Schedule {
  readonly learningRate: number;
  readonly schedule: ScheduleName;
  readonly warmupSteps: number;
  readonly steps: number;
}

/** Learning rate of step `step`, counted from 1. */
export function learningRateAt({ learningRate, schedule, warmupSteps, steps }: Schedule, step: number): number {
  if (step <= warmupSteps) return (learningRate * step) / (warmupSteps + 1);
  if (schedule === 'constant') return learningRate;
  const progress = Math.min(1, (step - 1 - warmupSteps) / Math.max(1, steps - warmupSteps));
  return learningRate * (schedule === 'linear' ? 1 - progress : 0.5 * (1 + Math.cos(Math.PI * progress)));
}
