// Merging LoRA adapters of different ranks: factors in, factors out. Mathematics only, in float64.
export * from './errors.ts';
export * from './merge-adapters.ts';
export { type ReadOut, readOut, type ServedFactors } from './read-out.ts';
export { type MatrixReport, type MatrixUpdate, normOfSum } from './spectrum.ts';
export * from './strategies/index.ts';
export { lowRankOf, sumOfProducts, type Term } from './sum.ts';
export { type Factors, type LowRank, type Shape, storedRank, zeroUpdate } from './types.ts';
export { normaliseWeights, type WeightLimit } from './weights.ts';
