// What an upload holds, checked before its receipt: every granted factor at its granted rank, or every element of a sparse
// update, in float32, finite, and no further from its start than training can have moved it.
import {
  elementsPerRow,
  parsePeftTensorName,
  parseSparseTensorName,
  peftTensorName,
  type RawTensor,
  rankOf,
  readSafetensors,
  sparseTensorName,
  toFloat32,
} from '@weft/formats';
import { type Grant, type Lease, ProtocolError } from '@weft/protocol';
import { messageOf } from '../errors.ts';
import type { Matrix } from '../runs/grants.ts';
import { type Reach, reachOf } from './reach.ts';

/**
 * Checks an upload against its lease. `start` are the start weights as served, `sent` the ranks announced: those granted, or
 * fewer where the client pruned, which then is compared with the first directions of its start. Throws the ProtocolError
 * that names the tensor at fault.
 */
export function checkFactors(
  bytes: Uint8Array,
  start: Uint8Array,
  { lease, sent }: { readonly lease: Lease; readonly sent: Grant },
  matrices: readonly Matrix[],
): void {
  const tensors = readTensors(bytes);
  const starts = readSafetensors(start, 'the start weights').tensors;
  const { training } = lease;
  const reach = reachOf(training);
  const expected = new Set<string>();
  for (const { name, shape, rankAxis } of matrices.flatMap((matrix) => expectedOf(training, sent, matrix))) {
    expected.add(name);
    const tensor = tensors.get(name);
    if (!tensor) throw new ProtocolError('upload-shape', `The upload lacks ${name}; send all that was granted.`);
    checkShape(name, tensor, shape, rankAxis);
    const from = starts.get(name);
    if (!from) throw new RangeError(`The start weights lack ${name}.`);
    checkValues(name, toFloat32(tensor, name), firstPart(toFloat32(from, name), from.shape, shape), reach);
  }
  for (const name of tensors.keys()) {
    if (expected.has(name)) continue;
    const known = training.sparse ? parseSparseTensorName(name) : parsePeftTensorName(name);
    const wanted = training.sparse ? 'no element of a sparse update' : 'no LoRA factor';
    const what = known ? 'a matrix the run does not adapt' : wanted;
    throw new ProtocolError('upload-shape', `The upload holds ${name.slice(0, 120)}, which is ${what}.`);
  }
}

/** The tensors of one matrix. `rankAxis`: where in its shape a factor has its rank; null where nothing of it is a rank. */
function expectedOf(
  { sparse }: Lease['training'],
  sent: Grant,
  { module, out, in: columns }: Matrix,
): { name: string; shape: readonly number[]; rankAxis: 0 | 1 | null }[] {
  if (sparse)
    return [{ name: sparseTensorName(module), shape: [out, elementsPerRow(sparse, columns)], rankAxis: null }];
  const rank = rankOf(sent, module);
  return [
    { name: peftTensorName(module, 'A'), shape: [rank, columns], rankAxis: 0 },
    { name: peftTensorName(module, 'B'), shape: [out, rank], rankAxis: 1 },
  ];
}

function readTensors(bytes: Uint8Array): ReadonlyMap<string, RawTensor> {
  try {
    return readSafetensors(bytes, 'the upload').tensors;
  } catch (cause) {
    throw new ProtocolError('upload-format', `The upload is not a well-formed safetensors file: ${messageOf(cause)}`, {
      cause,
    });
  }
}

/** The first rows and columns of a tensor. */
function firstPart(values: Float32Array, from: readonly number[], to: readonly number[]): Float32Array {
  const [, wide = 0] = from;
  const [rows = 0, columns = 0] = to;
  if (columns === wide) return values.subarray(0, rows * columns);
  return Float32Array.from({ length: rows * columns }, (_, i) => {
    const row = Math.floor(i / columns);
    return values[row * wide + (i - row * columns)] ?? 0;
  });
}

function checkShape(name: string, tensor: RawTensor, shape: readonly number[], rankAxis: 0 | 1 | null): void {
  if (tensor.dtype !== 'F32') {
    throw new ProtocolError('upload-dtype', `${name} has element type ${tensor.dtype}; F32 was announced.`);
  }
  const same = tensor.shape.length === 2 && tensor.shape.every((size, i) => size === shape[i]);
  if (same) return;
  if (rankAxis !== null && tensor.shape.length === 2 && tensor.shape[1 - rankAxis] === shape[1 - rankAxis]) {
    throw new ProtocolError(
      'upload-rank',
      `${name} has rank ${tensor.shape[rankAxis]}; granted was rank ${shape[rankAxis]}.`,
    );
  }
  throw new ProtocolError(
    'upload-shape',
    `${name} is [${tensor.shape.join(', ')}]; granted was [${shape.join(', ')}].`,
  );
}

function checkValues(name: string, values: Float32Array, start: Float32Array, reach: Reach): void {
  let sum = 0;
  let startSum = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i] ?? 0;
    if (!Number.isFinite(value)) {
      throw new ProtocolError(
        'upload-non-finite',
        `${name} holds ${value} at element ${i}; training has diverged. Lower the learning rate.`,
      );
    }
    const from = start[i] ?? 0;
    sum += (value - from) ** 2;
    startSum += from * from;
  }
  const distance = Math.sqrt(sum);
  const farthest = reach({ startNorm: Math.sqrt(startSum), elements: values.length });
  if (distance <= farthest) return;
  throw new ProtocolError(
    'upload-norm',
    `${name} lies ${distance.toPrecision(3)} from its start; the granted steps can move it ${farthest.toPrecision(3)} at most.`,
  );
}
