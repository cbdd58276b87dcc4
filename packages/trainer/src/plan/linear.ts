// One linear layer of the model, with its LoRA branch where it has one.
import {
  type KernelCall,
  linearLoraBackward,
  linearLoraForward,
  matmulNN,
  matmulNT,
  reshape,
  subTensor,
  type Tensor,
  type TensorSource,
} from '@weft/wgsl-kernels';
import type { LayerRefs, Layout } from './layout.ts';

/** Looks tensors up for the call builders: weights by name, activations by reference. */
export interface Graph {
  readonly layout: Layout;
  readonly source: TensorSource;
  weight(name: string): Tensor;
}

/** A view of one factor inside a flat tensor laid out as the parameters are. */
export function factorView(graph: Graph, flat: Tensor, module: string, factor: 'a' | 'b'): Tensor | null {
  const place = graph.layout.places.get(module);
  if (!place) return null;
  const { in: columns, out, rank } = place.matrix;
  return subTensor(flat, place[factor], factor === 'a' ? [rank, columns] : [out, rank]);
}

function branch(graph: Graph, layer: LayerRefs, module: string) {
  const { params } = graph.layout.forward;
  const place = graph.layout.places.get(module);
  const xaRef = layer.xa.get(module);
  if (!params || !place || !xaRef) return null;
  const flat = graph.source.get(params);
  const a = factorView(graph, flat, module, 'a');
  const b = factorView(graph, flat, module, 'b');
  return a && b ? { a, b, xa: graph.source.get(xaRef), scale: place.matrix.scale, rank: place.matrix.rank } : null;
}

/** y = x·Wᵀ (+ LoRA) for the layer named `module`. */
export function linearForward(graph: Graph, layer: LayerRefs, module: string, x: Tensor, y: Tensor): KernelCall[] {
  const w = graph.weight(`${module}.weight`);
  const lora = branch(graph, layer, module);
  return lora
    ? linearLoraForward({ x, w, y, a: lora.a, b: lora.b, xa: lora.xa }, { scale: lora.scale })
    : matmulNT({ a: x, b: w, c: y });
}

/** Gradients of the factors, and of x where `dx` is given (added to it when `accumulate`). */
export function linearBackward(
  graph: Graph,
  layer: LayerRefs,
  module: string,
  { x, dy, dx, accumulate }: { x: Tensor; dy: Tensor; dx: Tensor | null; accumulate: boolean },
): KernelCall[] {
  const w = graph.weight(`${module}.weight`);
  const lora = branch(graph, layer, module);
  const { backward } = graph.layout;
  if (!lora || !backward) return dx ? matmulNN({ a: dy, b: w, c: dx }, { accumulate }) : [];
  const rows = x.shape[0] ?? 0;
  const dxa = reshape(subTensor(graph.source.get(backward.dxa), 0, [rows * lora.rank]), [rows, lora.rank]);
  const grads = graph.source.get(backward.grads);
  const da = factorView(graph, grads, module, 'a');
  const db = factorView(graph, grads, module, 'b');
  return linearLoraBackward(
    {
      dy,
      x,
      xa: lora.xa,
      w,
      a: lora.a,
      b: lora.b,
      dxa,
      ...(dx ? { dx } : {}),
      ...(da ? { da } : {}),
      ...(db ? { db } : {}),
    },
    { scale: lora.scale, accumulateDx: accumulate },
  );
}
