// The whole model in plain float64: what the GPU's losses, logits and gradients are held to. Itself held to central
// differences and to values computed elsewhere (reference.test.ts). Never used in training.
import type { Example } from '../data/examples.ts';
import {
  assemble,
  backward,
  type Decoder,
  type FactorGradients,
  forward,
  type Masks,
  type Weights,
} from './decoder.ts';
import type { Branch } from './linear.ts';
import { addTo, float64, type Numbers } from './numbers.ts';
import { crossEntropy } from './pointwise.ts';

export type { FactorGradients } from './decoder.ts';
export type { Branch } from './linear.ts';

export interface ReferenceModel extends Weights {
  /** Frozen adapters: more branches on a module, which get no gradients and drop nothing. */
  readonly sides?: ReadonlyMap<string, readonly Branch[]>;
}

/** The adapter in training, such as a LoraAdapter; its factors may be float64. null for none. */
export type ReferenceAdapter = { readonly matrices: ReadonlyMap<string, Branch> } | null;

/**
 * Factors of the input of a trained branch, [T, in]: 0 where an element is dropped, 1/(1 − rate) where it is kept. null
 * where nothing is dropped. `example` counts from 0.
 */
export type DropoutMasks = (module: string, example: number) => Numbers | null;

export interface ReferenceGradients {
  /** Sum over the labelled next tokens of all examples / their number, nats. */
  readonly loss: number;
  /** By module, [rank, in] and [out, rank]. Both are given: neither depends on whether the other is trained. */
  readonly gradients: ReadonlyMap<string, FactorGradients>;
}

const keepAll: DropoutMasks = () => null;

const decoderOf = (model: ReferenceModel, adapter: ReferenceAdapter): Decoder =>
  assemble(model, adapter?.matrices ?? new Map(), model.sides ?? new Map());

function masksOf(dropout: DropoutMasks, example: number): Masks {
  return (module) => {
    const mask = dropout(module, example);
    return mask && float64(mask);
  };
}

/** What each token is to predict: the label of the next one, negative where ignored. [T] */
const targetsOf = ({ labels }: Example): number[] => [...labels.slice(1), -1];

function targetCount(examples: readonly Example[]): number {
  const count = examples.flatMap(targetsOf).filter((target) => target >= 0).length;
  if (count === 0) throw new RangeError('No example has a labelled next token.');
  return count;
}

/** Logits of every position of one sequence, [T, V]. */
export const referenceLogits = (
  model: ReferenceModel,
  adapter: ReferenceAdapter,
  inputIds: readonly number[],
): Float64Array => forward(decoderOf(model, adapter), inputIds, () => null).logits;

/** Mean cross-entropy over the labelled next tokens of all examples, nats; each example attends to itself only. */
export function referenceLoss(
  model: ReferenceModel,
  adapter: ReferenceAdapter,
  examples: readonly Example[],
  dropout: DropoutMasks = keepAll,
): number {
  const decoder = decoderOf(model, adapter);
  const sums = examples.map((example, i) => {
    const { logits } = forward(decoder, example.inputIds, masksOf(dropout, i));
    return crossEntropy(logits, targetsOf(example)).sum;
  });
  return sums.reduce((total, sum) => total + sum, 0) / targetCount(examples);
}

/** {@link referenceLoss} and its gradient by every factor of the adapter. */
export function referenceGradients(
  model: ReferenceModel,
  adapter: ReferenceAdapter,
  examples: readonly Example[],
  dropout: DropoutMasks = keepAll,
): ReferenceGradients {
  const decoder = decoderOf(model, adapter);
  const count = targetCount(examples);
  const gradients = new Map<string, FactorGradients>();
  let total = 0;
  for (const [i, example] of examples.entries()) {
    const masks = masksOf(dropout, i);
    const trace = forward(decoder, example.inputIds, masks);
    const { sum, dlogits } = crossEntropy(trace.logits, targetsOf(example));
    total += sum;
    for (const [module, { a, b }] of backward(decoder, trace, dlogits, masks)) {
      const own = gradients.get(module) ?? { a: new Float64Array(a.length), b: new Float64Array(b.length) };
      addTo(own.a, 0, a, 0, a.length, 1 / count);
      addTo(own.b, 0, b, 0, b.length, 1 / count);
      gradients.set(module, own);
    }
  }
  return { loss: total / count, gradients };
}
