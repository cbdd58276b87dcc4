// Dispatch of kernels without workgroup memory: one invocation a query or a head, or a few elements each.
import { foldWorkgroups } from '../runtime/call.ts';

/** Invocations of a workgroup in every shader dispatched here. */
const INVOCATIONS = 64;

/** Elements of an invocation in element-wise shaders, which stride over the whole dispatch: workgroups cost more than loops. */
const ELEMENTS = 8;

/** Workgroups for `count` invocations. */
export const invocationWorkgroups = (count: number): [number, number, number] =>
  foldWorkgroups(Math.ceil(count / INVOCATIONS));

/** Workgroups for `count` elements in a shader that strides. */
export const elementwiseWorkgroups = (count: number): [number, number, number] =>
  foldWorkgroups(Math.ceil(count / (INVOCATIONS * ELEMENTS)));
