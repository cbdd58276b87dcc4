// What Node lacks and browser libraries expect: `navigator.gpu`, and on Node 20 the iterator helpers that jax-js uses.
import { availableParallelism } from 'node:os';
import { nodeGpu } from '@weft/wgsl-kernels/node';

type Helpers = Record<string, unknown>;

/** Node 22 has these itself. As in ECMA-262, 27.1.4, for the ones that are missing. */
function addIteratorHelpers(): void {
  const prototype = Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]())) as Helpers;
  const helpers: Record<string, (this: Iterator<unknown> & Iterable<unknown>, each: never) => unknown> = {
    *map(each: (value: unknown, index: number) => unknown) {
      let i = 0;
      for (const value of this) yield each(value, i++);
    },
    *filter(each: (value: unknown, index: number) => boolean) {
      let i = 0;
      for (const value of this) if (each(value, i++)) yield value;
    },
    toArray() {
      return [...this];
    },
  };
  for (const [name, value] of Object.entries(helpers)) {
    if (!(name in prototype)) Object.defineProperty(prototype, name, { value, writable: true, configurable: true });
  }
}

/** Puts `navigator.gpu` (Dawn) and the helpers in place; the peers are imported after it. Returns the GPU entry. */
export function prepareNode(): GPU {
  addIteratorHelpers();
  const gpu = nodeGpu();
  const navigator = { gpu, userAgent: `Node ${process.version}`, hardwareConcurrency: availableParallelism() };
  Object.defineProperty(globalThis, 'navigator', { value: navigator, configurable: true });
  return gpu;
}
