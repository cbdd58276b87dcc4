// What an upload holds, checked before its receipt: every granted factor at its granted rank, or every element of a sparse
// update, in float32, finite, and no further from its start than training can have moved it. The file is read in windows, so
// that a check holds little memory and lets the event loop run in between.
import {
  elementsPerRow,
  parsePeftTensorName,
  parseSafetensorsHeader,
  parseSparseTensorName,
  peftTensorName,
  rankOf,
  type SafetensorsHeader,
  sparseTensorName,
  type TensorEntry,
} from '@weft/formats';
import { type Grant, type Lease, ProtocolError } from '@weft/protocol';
import { messageOf } from '../errors.ts';
import type { Matrix } from '../runs/grants.ts';
import { headerAllowance } from './announcement.ts';
import { type Reach, reachOf } from './reach.ts';
import type { StartPart, StartWeights } from './start-weights.ts';

/** An upload as it lies on disk. */
export interface FactorFile {
  readonly bytes: number;
  /** Fills `into` with the bytes from `position` on. */
  read(into: Uint8Array, position: number): Promise<void>;
}

/** A multiple of every element's size. */
const WINDOW_BYTES = 1 << 20;

/** Windows for the next checks; a new one for each would keep the garbage collector busy. */
const windows: Float32Array<ArrayBuffer>[] = [];
const WINDOWS_KEPT = 4;

/**
 * Checks an upload against its lease. `start` are the start weights as served, `sent` the ranks announced: those granted, or
 * fewer where the client pruned, which then is compared with the first directions of its start. Rejects with the
 * ProtocolError that names the tensor at fault.
 */
export async function checkFactors(
  file: FactorFile,
  start: StartWeights,
  { lease, sent }: { readonly lease: Lease; readonly sent: Grant },
  matrices: readonly Matrix[],
): Promise<void> {
  const { training } = lease;
  const { entries, dataOffset } = await readHeader(file, matrices.length);
  const parts = new Map<string, StartPart>();
  for (const { name, shape, rankAxis } of matrices.flatMap((matrix) => expectedOf(training, sent, matrix))) {
    const entry = entries.get(name);
    if (!entry) throw new ProtocolError('upload-shape', `The upload lacks ${name}; send all that was granted.`);
    checkShape(entry, shape, rankAxis);
    parts.set(name, start.part(name, shape));
  }
  for (const name of entries.keys()) {
    if (parts.has(name)) continue;
    const known = training.sparse ? parseSparseTensorName(name) : parsePeftTensorName(name);
    const wanted = training.sparse ? 'no element of a sparse update' : 'no LoRA factor';
    const what = known ? 'a matrix the run does not adapt' : wanted;
    throw new ProtocolError('upload-shape', `The upload holds ${name.slice(0, 120)}, which is ${what}.`);
  }
  const tensors = [...entries.values()].sort((a, b) => a.begin - b.begin);
  const window = windows.pop() ?? new Float32Array(WINDOW_BYTES / 4);
  try {
    await checkValues(file, dataOffset, tensors, parts, reachOf(training), window);
  } finally {
    if (windows.length < WINDOWS_KEPT) windows.push(window);
  }
}

async function readHeader(file: FactorFile, matrices: number): Promise<SafetensorsHeader> {
  const most = Math.min(file.bytes, 8 + headerAllowance(matrices));
  const head = new Uint8Array(most);
  await file.read(head, 0);
  try {
    // `most` also bounds the JSON that is parsed: what is longer holds more than the names that were granted.
    return parseSafetensorsHeader(head, file.bytes, 'the upload');
  } catch (cause) {
    throw new ProtocolError('upload-format', `The upload is not a well-formed safetensors file: ${messageOf(cause)}`, {
      cause,
    });
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

function checkShape({ name, dtype, shape }: TensorEntry, wanted: readonly number[], rankAxis: 0 | 1 | null): void {
  if (dtype !== 'F32') {
    throw new ProtocolError('upload-dtype', `${name} has element type ${dtype}; F32 was announced.`);
  }
  const same = shape.length === 2 && shape.every((size, i) => size === wanted[i]);
  if (same) return;
  if (rankAxis !== null && shape.length === 2 && shape[1 - rankAxis] === wanted[1 - rankAxis]) {
    throw new ProtocolError(
      'upload-rank',
      `${name} has rank ${shape[rankAxis]}; granted was rank ${wanted[rankAxis]}.`,
    );
  }
  throw new ProtocolError(
    'upload-shape',
    `${name} is [${shape.slice(0, 8).join(', ')}]; granted was [${wanted.join(', ')}].`,
  );
}

/** `tensors` lie back to back from `dataOffset` to the file's end, as the format demands. */
async function checkValues(
  file: FactorFile,
  dataOffset: number,
  tensors: readonly TensorEntry[],
  parts: ReadonlyMap<string, StartPart>,
  reach: Reach,
  window: Float32Array<ArrayBuffer>,
): Promise<void> {
  let begin = dataOffset;
  let end = dataOffset;
  for (const { name, ...tensor } of tensors) {
    const start = parts.get(name);
    if (!start) throw new RangeError(`${name} was not expected.`);
    let sum = 0;
    for (let at = tensor.begin; at < tensor.end; ) {
      if (at === end) {
        begin = end;
        end = Math.min(begin + 4 * window.length, file.bytes);
        await file.read(new Uint8Array(window.buffer, 0, end - begin), begin);
      }
      const until = Math.min(end, tensor.end);
      const values = window.subarray((at - begin) / 4, (until - begin) / 4);
      sum += squaredDistance(values, start.values, (at - tensor.begin) / 4);
      // Finite numbers of float32 have a finite sum of squares in float64, so only a sum that is not needs a closer look.
      if (!Number.isFinite(sum)) refuseNonFinite(name, values, (at - tensor.begin) / 4);
      at = until;
    }
    const distance = Math.sqrt(sum);
    const farthest = reach({ startNorm: start.norm, elements: start.values.length });
    if (distance <= farthest) continue;
    throw new ProtocolError(
      'upload-norm',
      `${name} lies ${distance.toPrecision(3)} from its start; the granted steps can move it ${farthest.toPrecision(3)} at most.`,
    );
  }
}

function squaredDistance(values: Float32Array, start: Float32Array, from: number): number {
  let sum = 0;
  for (let i = 0; i < values.length; i += 1) {
    const moved = (values[i] ?? 0) - (start[from + i] ?? 0);
    sum += moved * moved;
  }
  return sum;
}

function refuseNonFinite(name: string, values: Float32Array, from: number): void {
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at < 0) return;
  throw new ProtocolError(
    'upload-non-finite',
    `${name} holds ${values[at]} at element ${from + at}; training has diverged. Lower the learning rate.`,
  );
}
