// Where the factors of an adapter lie on the GPU: flat tensors, one after the other, cut where one would be larger than a
// binding covers. Trained factors come with gradients, and what the optimiser keeps of them, laid out the same; frozen ones
// do not.
import { type LoraFactors, sparseColumns } from '@weft/formats';
import {
  type ArenaPlan,
  columnLists,
  type SparsePlaces,
  subTensor,
  type Tensor,
  type TensorRef,
} from '@weft/wgsl-kernels';
import { TrainerError } from '../errors.ts';
import type { AdaptedMatrix } from '../lora/adapter.ts';
import type { Moment } from '../optim/optimiser.ts';

/** Which factors are trained. The other ones stay as they are (FFA-LoRA, Sun et al. 2024, trains B alone). */
export type Trainable = 'both' | 'A' | 'B';

/** Several factors side by side; `training` is null where they are frozen. */
export interface Flat {
  readonly elements: number;
  readonly params: TensorRef;
  readonly training: { readonly grads: TensorRef; readonly moments: ReadonlyMap<Moment, TensorRef> } | null;
}

/** What a flat tensor has of `kind`; null where it has none. */
function tensorOf({ params, training }: Flat, kind: FactorKind): TensorRef | null {
  if (kind === 'params') return params;
  return (kind === 'grads' ? training?.grads : training?.moments.get(kind)) ?? null;
}

interface Place {
  readonly flat: Flat;
  /** Elements from the start; a multiple of 64, so that a view of it can be bound. */
  readonly at: number;
  readonly shape: readonly [rows: number, columns: number];
}

/** u32 tensors that say where the elements of a sparse matrix lie. */
export interface ElementPlaces extends SparsePlaces {
  readonly columns: TensorRef;
  readonly starts: TensorRef;
  readonly entries: TensorRef;
}

export interface FactorPlaces {
  readonly matrix: AdaptedMatrix;
  /** null where the matrix is sparse. */
  readonly a: Place | null;
  /** B, or the elements of a sparse matrix. */
  readonly b: Place;
  /** null where the matrix is factored. */
  readonly elements: ElementPlaces | null;
}

export type FactorKind = 'params' | 'grads' | Moment;

const alignElements = (elements: number): number => Math.ceil(elements / 64) * 64;

interface Wanted {
  readonly elements: number;
  readonly trained: boolean;
  place?: Place;
  readonly shape: readonly [number, number];
}

/** Factors in the order given, as many in one flat tensor as `limit` bytes hold. */
function planFlats(
  plan: ArenaPlan,
  name: string,
  wanted: readonly Wanted[],
  { trained, moments, limit }: { trained: boolean; moments: readonly Moment[]; limit: number },
): { flats: Flat[]; places: Map<Wanted, Place> } {
  const groups: { items: { wanted: Wanted; at: number }[]; elements: number }[] = [];
  for (const item of wanted) {
    const size = alignElements(item.elements);
    let group = groups.at(-1);
    if (!group || 4 * (group.elements + size) > limit) {
      group = { items: [], elements: 0 };
      groups.push(group);
    }
    group.items.push({ wanted: item, at: group.elements });
    group.elements += size;
  }
  const places = new Map<Wanted, Place>();
  const flats = groups.map(({ items, elements }, i): Flat => {
    const tensor = (what: string) => plan.tensor(`${name}.${what}.${i}`, [elements]);
    const training = trained
      ? { grads: tensor('grads'), moments: new Map(moments.map((moment) => [moment, tensor(moment)])) }
      : null;
    const flat = { elements, params: tensor(trained ? 'params' : 'frozen'), training };
    for (const { wanted: item, at } of items) places.set(item, { flat, at, shape: item.shape });
    return flat;
  });
  return { flats, places };
}

/** The tensors of a sparse matrix's places; null for a factored one. */
function planElements(plan: ArenaPlan, name: string, { module, rank, out, in: columns, sparse }: AdaptedMatrix) {
  if (!sparse) return null;
  const tensor = (what: string, shape: readonly number[]) => plan.tensor(`${name}.${module}.${what}`, shape, 'u32');
  return {
    columns: tensor('columns', [out, rank]),
    starts: tensor('starts', [columns + 1]),
    entries: tensor('entries', [out * rank]),
  };
}

/** The factors of one adapter. */
export class FactorLayout {
  readonly flats: readonly Flat[];
  readonly places: ReadonlyMap<string, FactorPlaces>;

  private constructor(flats: readonly Flat[], places: ReadonlyMap<string, FactorPlaces>) {
    this.flats = flats;
    this.places = places;
  }

  /**
   * Plans every factor of `matrices`; `trainable` null freezes them all. `moments`: what the optimiser keeps of trained ones.
   * Throws GpuError 'shape' for one beyond `limit`.
   */
  static plan(
    plan: ArenaPlan,
    name: string,
    matrices: readonly AdaptedMatrix[],
    { trainable, moments = [], limit }: { trainable: Trainable | null; moments?: readonly Moment[]; limit: number },
  ): FactorLayout {
    const wanted = matrices.map((matrix) => {
      const { rank, in: columns, out, sparse } = matrix;
      const a: Wanted = {
        elements: rank * columns,
        shape: [rank, columns],
        trained: trainable !== null && trainable !== 'B',
      };
      const b: Wanted = {
        elements: out * rank,
        shape: [out, rank],
        trained: trainable !== null && (trainable !== 'A' || sparse !== undefined),
      };
      return { matrix, a: sparse ? null : a, b, elements: planElements(plan, name, matrix) };
    });
    const all = wanted.flatMap(({ a, b }) => (a ? [a, b] : [b]));
    const parts = [true, false].map((trained) =>
      planFlats(
        plan,
        name,
        all.filter((item) => item.trained === trained),
        { trained, moments, limit },
      ),
    );
    const placeOf = (item: Wanted): Place => {
      const place = parts.map(({ places }) => places.get(item)).find((found) => found !== undefined);
      if (!place) throw new TrainerError('bad-settings', `A factor of ${name} was left without a place.`);
      return place;
    };
    return new FactorLayout(
      parts.flatMap(({ flats }) => flats),
      new Map(
        wanted.map(({ matrix, a, b, elements }) => [
          matrix.module,
          { matrix, a: a && placeOf(a), b: placeOf(b), elements },
        ]),
      ),
    );
  }

  get trained(): { flat: Flat; training: NonNullable<Flat['training']> }[] {
    return this.flats.flatMap((flat) => (flat.training ? [{ flat, training: flat.training }] : []));
  }

  /** Is any factor of this module trained? */
  trains(module: string): boolean {
    const places = this.places.get(module);
    const trained = (place: Place | null) => (place?.flat.training ?? null) !== null;
    return places !== undefined && (trained(places.a) || trained(places.b));
  }

  /** The tensors that say where the elements of sparse matrices lie. */
  get elementTensors(): TensorRef[] {
    return [...this.places.values()].flatMap(({ elements }) =>
      elements ? [elements.columns, elements.starts, elements.entries] : [],
    );
  }

  /** Their contents, which never change. */
  elementContents(): Map<TensorRef, Uint32Array> {
    const contents = new Map<TensorRef, Uint32Array>();
    for (const { matrix, elements } of this.places.values()) {
      if (!elements || !matrix.sparse) continue;
      const columns = sparseColumns(matrix.sparse, matrix);
      const lists = columnLists(columns, matrix.in);
      contents.set(elements.columns, columns).set(elements.starts, lists.starts).set(elements.entries, lists.entries);
    }
    return contents;
  }

  /** A [r, in] or B [out, r] of a module (the elements [out, r] of a sparse one), or what belongs to it; null where there is none. */
  view(module: string, factor: 'a' | 'b', kind: FactorKind): Tensor | null {
    const place = this.places.get(module)?.[factor];
    if (!place) return null;
    const tensor = tensorOf(place.flat, kind);
    return tensor ? subTensor(tensor, place.at, place.shape) : null;
  }

  /** The contents of all flat tensors of `kind` for these factors. Throws TrainerError 'rank-mismatch'. */
  gather(kind: FactorKind, factors: ReadonlyMap<string, LoraFactors>): Map<TensorRef, Float32Array> {
    const contents = new Map<TensorRef, Float32Array>();
    for (const { matrix, ...places } of this.places.values()) {
      const own = factors.get(matrix.module);
      const fits =
        own?.rank === matrix.rank &&
        own.a.length === (places.a ? matrix.rank * matrix.in : 0) &&
        own.b.length === matrix.out * matrix.rank;
      if (!own || !fits) {
        throw new TrainerError(
          'rank-mismatch',
          `The adapter has rank ${own?.rank ?? 'none'} for ${matrix.module} where rank ${matrix.rank} was planned.`,
        );
      }
      for (const factor of ['a', 'b'] as const) {
        const place = places[factor];
        if (!place) continue;
        const { flat, at } = place;
        const tensor = tensorOf(flat, kind);
        if (!tensor) continue;
        const content = contents.get(tensor) ?? new Float32Array(flat.elements);
        content.set(own[factor], at);
        contents.set(tensor, content);
      }
    }
    return contents;
  }

  /** The other way round; factors without `kind` (frozen ones have no gradients) come out as zeros. */
  scatter(kind: FactorKind, contents: ReadonlyMap<TensorRef, Float32Array>): Map<string, LoraFactors> {
    return new Map(
      [...this.places.values()].map(({ matrix, ...places }) => {
        const read = (place: Place | null): Float32Array => {
          if (!place) return new Float32Array(0);
          const {
            flat,
            at,
            shape: [rows, columns],
          } = place;
          const tensor = tensorOf(flat, kind);
          const content = tensor && contents.get(tensor);
          return content ? content.slice(at, at + rows * columns) : new Float32Array(rows * columns);
        };
        return [matrix.module, { ...matrix, a: read(places.a), b: read(places.b) }];
      }),
    );
  }

  /** The tensors of one kind. */
  tensors(kind: FactorKind): TensorRef[] {
    return this.flats.flatMap((flat) => {
      const tensor = tensorOf(flat, kind);
      return tensor ? [tensor] : [];
    });
  }
}
