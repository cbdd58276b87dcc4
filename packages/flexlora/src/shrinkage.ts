// The law of singular values under mixed ranks (Weft's architecture, "Merging"): a model of training, not training itself.
// Every client whose rank reaches direction j takes its singular value a share η of the way to σ*, the others leave it out.

export interface Reach {
  /** p: weight share of the clients whose rank reaches the direction, in [0, 1]. */
  readonly p: number;
  /** η: share of the way to the target that local training takes in one round, in [0, 1]. */
  readonly progress: number;
  /** σ*: where training alone would end. */
  readonly target: number;
}

/** σ after a round of `flexlora`: p·(σ + η·(σ* − σ)). What clients do not reach is lost. */
export const replaced = (sigma: number, { p, progress, target }: Reach): number =>
  p * (sigma + progress * (target - sigma));

/** σ after a round of `flexlora-carry`: σ + p·η·(σ* − σ). What clients do not reach is carried over. */
export const carried = (sigma: number, { p, progress, target }: Reach): number =>
  sigma + p * progress * (target - sigma);

/** Where {@link replaced} ends: σ∞ = σ*·p·η / (1 − p·(1 − η)); 0 where nobody trains. */
export const fixedPoint = ({ p, progress, target }: Reach): number =>
  progress === 0 ? 0 : (target * p * progress) / (1 - p * (1 - progress));
