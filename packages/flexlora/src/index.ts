// Merging LoRA adapters of different ranks: factors in, factors out. Mathematics only, in float64.
export {
  type Agreement,
  agreementOf,
  agreementOfElements,
  cosinesWithOthers,
  cosinesWithSum,
  sumAgreements,
} from './agreement.ts';
export { CappedSum, type CappedSumOptions } from './capped-sum.ts';
export * from './errors.ts';
export * from './merge-adapters.ts';
export {
  type ReadOut,
  readOut,
  readOutSide,
  readOutStart,
  readOutState,
  type ServedFactors,
  sideRank,
} from './read-out.ts';
export * from './robust.ts';
export { carried, fixedPoint, type Reach, replaced } from './shrinkage.ts';
export { changeParts, type MatrixReport, type MatrixUpdate, normOfSum, truncationErrors } from './spectrum.ts';
export type { Term } from './stack.ts';
export * from './strategies/index.ts';
export { lowRankOf, type Route, type Sum, type SumOptions, sumOfProducts, UpdateSum } from './sum.ts';
export {
  type Factors,
  inHand,
  isLowRank,
  type LowRank,
  type Shape,
  type Side,
  type State,
  storedRank,
  zeroUpdate,
} from './types.ts';
export { normaliseWeights, type WeightLimit } from './weights.ts';
