// Dispatch of kernels in which every invocation handles one element.
import { foldWorkgroups } from '../runtime/plan.ts';

/** Invocations of a workgroup in every element-wise shader. */
export const ELEMENTWISE_INVOCATIONS = 64;

/** Workgroups for `count` elements, one an invocation. */
export const elementwiseWorkgroups = (count: number): [number, number, number] =>
  foldWorkgroups(Math.ceil(count / ELEMENTWISE_INVOCATIONS));
