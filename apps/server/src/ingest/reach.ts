// How far from its start local training can have moved a factor: what the granted steps allow by the rule of the granted
// optimiser, whatever the gradients were. An honest upload is never beyond it; what is beyond it was not trained as granted.
import type { TrainingSettings } from '@weft/protocol';

/** AdamW moves an element by at most about 3.2 · learning rate a step (β = 0.9, 0.999); ten leaves room for decay. */
const FARTHEST_STEP = 10;

/** Float32 on a GPU: norms and updates are rounded, each step's parameter once more. */
const ROUNDING = 1.01;
const PARAMETER_ROUNDING = 2 ** -23;

/** Greatest Frobenius distance of a tensor from its start. */
export type Reach = (tensor: { readonly startNorm: number; readonly elements: number }) => number;

type Steps = Pick<
  TrainingSettings,
  'optimiser' | 'learningRate' | 'momentum' | 'weightDecay' | 'maxGradNorm' | 'steps'
>;

export function reachOf(training: Steps): Reach {
  const { optimiser, learningRate, maxGradNorm, steps } = training;
  if (optimiser === 'sgd') {
    const byGradient = sgdDistance(training, { gradient: 1, start: 0 });
    const byDecay = sgdDistance(training, { gradient: 0, start: 1 });
    // Without clipping nothing bounds a gradient; runs with SGD are not made without it.
    const gradient = maxGradNorm > 0 ? maxGradNorm : Number.POSITIVE_INFINITY;
    return ({ startNorm }) => {
      const exact = byGradient * gradient + byDecay * startNorm;
      return ROUNDING * exact + PARAMETER_ROUNDING * steps * (startNorm + exact);
    };
  }
  const element = Math.max(1, FARTHEST_STEP * learningRate * steps);
  return ({ elements }) => element * Math.sqrt(elements);
}

/**
 * ‖p_T − p_0‖ at most for v ← μ·v + g + λ·p, p ← p − η·v with ‖g‖ ≤ `gradient` and ‖p_0‖ = `start`, by the triangle inequality
 * step by step; linear in both. Without decay and momentum η·T·‖g‖. A schedule only lowers η.
 */
function sgdDistance(
  { learningRate, momentum, weightDecay, steps }: Steps,
  { gradient, start }: { readonly gradient: number; readonly start: number },
): number {
  let velocity = 0;
  let distance = 0;
  for (let step = 0; step < steps; step += 1) {
    velocity = momentum * velocity + gradient + weightDecay * (start + distance);
    distance += learningRate * velocity;
  }
  return distance;
}
