// Checks that what a round starts from, and what it delivers, is what was granted: names, ranks, shapes, float32 of factors,
// or of the elements of a sparse update.
import {
  parsePeftTensorName,
  parseSparseTensorName,
  peftTensorName,
  prunedRank,
  type RawTensor,
  rankOf,
  readSafetensors,
} from '@weft/formats';
import type { Grant, TrainingSettings } from '@weft/protocol';
import { messageOf, SessionError } from './errors.ts';

const shapeText = (shape: readonly number[]): string => `[${shape.join(', ')}]`;

/**
 * Every tensor of the start must be a factor of a granted matrix at its granted rank, or the elements of one where updates
 * are `sparse`; how many there must be of these only the trainer knows. Throws SessionError 'start-rank'.
 */
export function checkStart(start: Uint8Array, grant: Grant, sparse: TrainingSettings['sparse']): void {
  const refuse = (what: string, cause?: unknown): never => {
    throw new SessionError(
      'start-rank',
      `The start weights are not what was granted: ${what}. Nothing was trained on them; tell the operator.`,
      { cause },
    );
  };
  const tensors = read(start, refuse);
  if (tensors.size === 0) refuse('they hold no tensor');
  for (const [name, { dtype, shape }] of tensors) {
    if (sparse) {
      const module = parseSparseTensorName(name);
      if (!module || !grant.targets.some((target) => module.endsWith(`.${target}`)))
        refuse(`${name} holds no elements of a granted matrix`);
      if (shape.length !== 2 || dtype !== 'F32') refuse(`${name} is ${dtype} ${shapeText(shape)} instead of F32 rows`);
      continue;
    }
    const parsed = parsePeftTensorName(name);
    if (!parsed || !grant.targets.some((target) => parsed.module.endsWith(`.${target}`))) {
      refuse(`${name} is no factor of a granted matrix`);
      continue;
    }
    const rank = rankOf(grant, parsed.module);
    const has = parsed.factor === 'A' ? shape[0] : shape[1];
    if (shape.length !== 2 || has !== rank) refuse(`${name} is ${shapeText(shape)}, granted was rank ${rank}`);
    if (dtype !== 'F32') refuse(`${name} is ${dtype} instead of F32`);
  }
}

/**
 * A frozen side adapter may have any rank by matrix, also none at all; what it holds must be pairs of factors of granted
 * matrices. Throws SessionError 'start-rank'.
 */
export function checkSide(side: Uint8Array, grant: Grant): void {
  const refuse = (what: string, cause?: unknown): never => {
    throw new SessionError(
      'start-rank',
      `The weights to train beside are not what was granted: ${what}. Nothing was trained on them; tell the operator.`,
      { cause },
    );
  };
  const tensors = read(side, refuse);
  for (const [name, { dtype, shape }] of tensors) {
    const parsed = parsePeftTensorName(name);
    if (!parsed || !grant.targets.some((target) => parsed.module.endsWith(`.${target}`))) {
      refuse(`${name} is no factor of a granted matrix`);
      continue;
    }
    const other = tensors.get(peftTensorName(parsed.module, parsed.factor === 'A' ? 'B' : 'A'));
    const [own, theirs] = parsed.factor === 'A' ? [shape[0], other?.shape[1]] : [shape[1], other?.shape[0]];
    if (shape.length !== 2 || own !== theirs) refuse(`${name} is ${shapeText(shape)}, unlike its other factor`);
    if (dtype !== 'F32') refuse(`${name} is ${dtype} instead of F32`);
  }
}

/** What was delivered under which lease. */
interface Delivered {
  readonly grant: Grant;
  readonly pruning: TrainingSettings['pruning'];
  /** Rank that the trainer says it delivers. */
  readonly rank: number;
}

/**
 * The update must have the start's tensors: same names, shapes and types, but for the rank where the lease says that it may
 * be pruned. Throws SessionError 'update-rank'.
 */
export function checkUpdate(update: Uint8Array, start: Uint8Array, { grant, pruning, rank }: Delivered): void {
  const refuse = (what: string, cause?: unknown): never => {
    throw new SessionError(
      'update-rank',
      `The trained factors do not match the start weights: ${what}. They were not sent. This is a fault of this program; please report it.`,
      { cause },
    );
  };
  const isPruned = pruning !== null && rank === prunedRank(grant.rank, pruning.gamma);
  if (rank !== grant.rank && !isPruned) refuse(`they have rank ${rank}, granted was rank ${grant.rank}`);
  const shapeAt = (name: string, shape: readonly number[]): number[] => {
    const factor = parsePeftTensorName(name)?.factor;
    // Elements of a sparse update have no rank.
    if (!factor) return [...shape];
    const axis = factor === 'A' ? 0 : 1;
    return shape.map((size, i) => (i === axis ? Math.min(size, rank) : size));
  };
  const expected = read(start, refuse);
  const trained = read(update, refuse);
  for (const [name, { shape: served, dtype }] of expected) {
    const shape = shapeAt(name, served);
    const tensor = trained.get(name);
    if (!tensor) refuse(`${name} is missing`);
    else if (shapeText(tensor.shape) !== shapeText(shape) || tensor.dtype !== dtype) {
      refuse(`${name} is ${tensor.dtype} ${shapeText(tensor.shape)} instead of ${dtype} ${shapeText(shape)}`);
    }
  }
  for (const name of trained.keys()) if (!expected.has(name)) refuse(`${name} was not granted`);
}

function read(file: Uint8Array, refuse: (what: string, cause: unknown) => never): ReadonlyMap<string, RawTensor> {
  try {
    return readSafetensors(file, 'the file').tensors;
  } catch (error) {
    return refuse(messageOf(error), error);
  }
}
