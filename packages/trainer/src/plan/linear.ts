// One linear layer of the model: its frozen weight and bias, its LoRA branch or sparse branch in training, frozen side
// adapters.
import {
  dropout,
  linearLoraBackward,
  linearLoraForward,
  loraBackward,
  loraForward,
  matmulNT,
  sparseBackward,
  sparseForward,
  type Tensor,
  weightNN,
  weightNT,
} from '@weft/wgsl-kernels';
import { TrainerError } from '../errors.ts';
import type { GraphBuilder } from './builder.ts';
import type { FactorLayout } from './factors.ts';

interface Branch {
  readonly a: Tensor;
  readonly b: Tensor;
  readonly rank: number;
  readonly scale: number;
}

function branchOf(layout: FactorLayout, module: string): Branch | null {
  const matrix = layout.places.get(module)?.matrix;
  const a = layout.view(module, 'a', 'params');
  const b = layout.view(module, 'b', 'params');
  return matrix && a && b ? { a, b, rank: matrix.rank, scale: matrix.scale } : null;
}

/** The elements of a sparse matrix [out, perRow], and where they lie; null where the module's branch is factored. */
function sparseOf(layout: FactorLayout, module: string) {
  const places = layout.places.get(module)?.elements;
  const values = places ? layout.view(module, 'b', 'params') : null;
  return places && values ? { places, values } : null;
}

/** Distinguishes the dropout masks of the layers; the same in the forward pass, when recomputed, and in the backward pass. */
const saltOf = (layout: FactorLayout, module: string): number => [...layout.places.keys()].indexOf(module);

const rowsOf = (x: Tensor): number => x.shape[0] ?? 0;

const isTrained = (g: GraphBuilder, layout: FactorLayout): boolean => layout === g.adapters[0];

/** The input of the A factor: x, or x with elements dropped while training (PEFT drops before A). */
function loraInput(g: GraphBuilder, layout: FactorLayout, module: string, x: Tensor): Tensor {
  if (!g.dropout || !isTrained(g, layout)) return x;
  const dropped = g.temporary(`${module}.dropped`, x.shape);
  const { seed, rate } = g.dropout;
  g.push(dropout({ x, seed, out: dropped }, { rate, salt: saltOf(layout, module), accumulate: false }));
  return dropped;
}

/** Bias of a module [out], where its model has one. */
function biasOf(g: GraphBuilder, module: string): Tensor | undefined {
  const projection = module.slice(module.lastIndexOf('.') + 1);
  return g.config.biases.some((biased) => biased === projection) ? g.weights.vector(`${module}.bias`) : undefined;
}

/**
 * y = x·Wᵀ + bias + Σ s·(x·Aᵀ)·Bᵀ over the adapters + residual, with x·Sᵀ in the place of a factored branch where one is
 * sparse. Returns x·Aᵀ [N, r] of the adapter in training, which the backward pass wants (null for a sparse one). Without `y`
 * that is all that is computed.
 */
export function linearForward(
  g: GraphBuilder,
  module: string,
  x: Tensor,
  y: Tensor | null,
  residual?: Tensor,
): Tensor | null {
  const w = g.weights.matrix(`${module}.weight`);
  const bias = biasOf(g, module);
  const added = { ...(bias ? { bias } : {}), ...(residual ? { residual } : {}) };
  let kept: Tensor | null = null;
  let started = false;
  for (const layout of g.adapters) {
    const sparse = sparseOf(layout, module);
    if (sparse && y) {
      if (!started) g.push(weightNT({ x, w, y }, added));
      g.push(sparseForward({ x, y, ...sparse }));
      started = true;
    }
    const branch = branchOf(layout, module);
    if (!branch || (!y && !isTrained(g, layout))) continue;
    const { a, b, rank, scale } = branch;
    const xa = g.temporary(`${module}.xa`, [rowsOf(x), rank]);
    const input = loraInput(g, layout, module, x);
    if (!y) g.push(matmulNT({ a: input, b: a, c: xa }));
    else if (started) g.push(loraForward({ x: input, a, b, y, xa }, { scale }));
    else g.push(linearLoraForward({ x, w, a, b, y, xa, xLora: input }, { scale, ...added }));
    started = true;
    if (isTrained(g, layout)) kept = xa;
  }
  if (y && !started) g.push(weightNT({ x, w, y }, added));
  return kept;
}

/**
 * Adds to the gradients of the trained factors; gives the gradient of x in `dx`, or adds it when `accumulate`. `dx` null:
 * nothing flows further down.
 */
export function linearBackward(
  g: GraphBuilder,
  module: string,
  {
    x,
    xa,
    dy,
    dx,
    accumulate = false,
  }: { x: Tensor; xa: Tensor | null; dy: Tensor; dx: Tensor | null; accumulate?: boolean },
): void {
  const w = g.weights.matrix(`${module}.weight`);
  let started = false;
  for (const layout of g.adapters) {
    const sparse = sparseOf(layout, module);
    if (sparse) {
      const dvalues = layout.view(module, 'b', 'grads');
      if (dx && !started) g.push(weightNN({ dy, w, dx }, { accumulate }));
      const own = { x, dy, ...sparse, ...(dx ? { dx } : {}), ...(dvalues ? { dvalues } : {}) };
      g.push(sparseBackward(own, { accumulateValues: true }));
      started = true;
    }
    const branch = branchOf(layout, module);
    if (!branch) continue;
    const { a, b, rank, scale } = branch;
    const trained = isTrained(g, layout);
    const da = trained ? layout.view(module, 'a', 'grads') : null;
    const db = trained ? layout.view(module, 'b', 'grads') : null;
    if (!dx && !da && !db) continue;
    if (trained && !xa) throw new TrainerError('bad-settings', `The forward pass kept nothing of ${module}.`);
    const dxa = g.temporary(`${module}.dxa`, [rowsOf(x), rank]);
    const masked = trained && g.dropout !== null;
    const input = da ? loraInput(g, layout, module, x) : x;
    const dropped = masked && dx ? g.temporary(`${module}.dx`, x.shape) : null;
    const own = {
      ...{ dy, x: input, xa: xa ?? dxa, a, b, dxa },
      ...(da ? { da } : {}),
      ...(db ? { db } : {}),
      ...(dx ? { dx } : {}),
      ...(dropped ? { dxLora: dropped } : {}),
    };
    const options = { scale, accumulateFactors: true };
    g.push(
      started || !dx
        ? loraBackward(own, options)
        : linearLoraBackward({ ...own, w }, { ...options, accumulateDx: accumulate }),
    );
    started = true;
    if (g.dropout && dropped && dx) {
      const { seed, rate } = g.dropout;
      g.push(dropout({ x: dropped, seed, out: dx }, { rate, salt: saltOf(layout, module), accumulate: true }));
    }
  }
  if (dx && !started) g.push(weightNN({ dy, w, dx }, { accumulate }));
}
