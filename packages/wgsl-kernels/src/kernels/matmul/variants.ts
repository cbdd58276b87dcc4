// The shaders a product may run as, best guess first. What they compute is the same to the byte; which is fastest depends on
// the adapter and on the sizes.
import type { KernelVariant } from '../../runtime/call.ts';
import type { ShaderSource } from '../../runtime/shader.ts';
import { WEIGHT_TYPES, type WeightType } from '../../weights/encode.ts';
import { weightElementCode, weightVectorCode } from '../../weights/shaders.ts';
import { epilogueCode } from './epilogue.ts';
import anyCode from './matmul.wgsl?raw';
import paramsCode from './params.wgsl?raw';
import { type Form, registerTile, type TileProduct, type TileShape, tileSpan } from './register-tile.ts';
import { stagedSpan, stagedTile } from './staged-tile.ts';

/** What decides a product's shader beside its variant. */
export interface Product extends TileProduct {
  readonly type: WeightType;
}

export interface MatmulShape {
  readonly name: string;
  readonly suits: 'any' | 'software' | 'hardware';
  /** Invocations of a subgroup it was written for. */
  readonly subgroup?: KernelVariant['subgroup'];
  readonly kind: 'any sizes' | 'registers' | 'staged';
  /** Rows and columns of c that a workgroup computes. */
  readonly span: readonly [rows: number, columns: number];
  /**
   * Its shader has the branch and the residual in any case, and serves products without them too: for adapters that take
   * seconds to compile one.
   */
  readonly servesAll?: boolean;
  /** The text of its entry point. */
  readonly code: (product: TileProduct) => string;
}

/** Serves any sizes, by single elements; its workgroups take tiles of 8×8, wherever they lie. */
export const ANY_SIZES: MatmulShape = {
  name: 'any sizes',
  suits: 'any',
  kind: 'any sizes',
  span: [8, 8],
  code: () => anyCode,
};
/** Tiles of a workgroup of {@link ANY_SIZES}. */
const ANY_WORKGROUP = 32;

const tile = (shape: TileShape): MatmulShape => ({
  name: `${shape.quad ? 'quad' : 'own'} ${shape.lanes} ${shape.rows}×${4 * shape.vectors}`,
  // Software adapters pay per load, which a quad shares; on hardware caches do.
  suits: shape.quad ? 'software' : 'any',
  kind: 'registers',
  span: tileSpan(shape),
  code: (product) => registerTile(shape, product),
});
const staged = (square: 4 | 8): MatmulShape => ({
  name: `staged ${stagedSpan(square)}×${stagedSpan(square)}`,
  // Software adapters pay for barriers, and have no memory that is faster than another.
  suits: 'hardware',
  kind: 'staged',
  span: [stagedSpan(square), stagedSpan(square)],
  code: ({ form, branch }) => stagedTile(form, square, branch),
});
const columns = (rows: number, vectors: number, quad: boolean): MatmulShape =>
  tile({ lanes: 'columns', rows, vectors, workgroup: quad ? 8 : 16, quad });
const rows = (count: number, vectors: number, quad: boolean): MatmulShape =>
  tile({ lanes: 'rows', rows: count, vectors, workgroup: quad ? 8 : 16, quad });

/** lavapipe computes eight invocations or more at a time, in as many registers of the processor as hold this tile. */
const WIDE_SUBGROUPS: MatmulShape = { ...columns(24, 1, true), subgroup: { least: 8, most: 128 }, servesAll: true };
/** SwiftShader computes four at a time and keeps a tile in memory, so that only the number of loads counts. */
const narrowSubgroups = (vectors: number): MatmulShape => ({
  ...tile({ lanes: 'columns', rows: 32, vectors, workgroup: 4, quad: true, writtenOut: vectors === 2 }),
  subgroup: { least: 4, most: 4 },
  servesAll: true,
});
/** A side of a product that a workgroup of the largest tile would fill once or twice. */
const SMALL_SIDE = 128;

/** Variants by the kind of product; the first of each needs no optional feature. */
export interface ShapeClass {
  readonly name: string;
  /** Whether the class serves products of so many rows and columns, and so many steps of k. */
  readonly serves: (rows: number, columns: number, inner: number) => boolean;
  /** Products with a branch pass it by, being of a layer's width: few shaders serve them, since each costs time to compile. */
  readonly plainOnly?: boolean;
  readonly shapes: readonly MatmulShape[];
}

/** In order: the first class that serves is taken. */
export const SHAPE_CLASSES: readonly ShapeClass[] = [
  { name: 'one row', serves: (count) => count === 1, shapes: [columns(1, 1, false)] },
  { name: 'few rows', serves: (count) => count <= 8, shapes: [columns(8, 1, false), columns(8, 1, true)] },
  {
    name: 'four columns',
    serves: (_, width) => width <= 4,
    plainOnly: true,
    shapes: [rows(8, 1, false), rows(8, 1, true)],
  },
  {
    name: 'eight columns',
    serves: (_, width) => width <= 8,
    plainOnly: true,
    shapes: [rows(4, 2, false), rows(4, 2, true)],
  },
  {
    name: 'sixteen columns',
    serves: (_, width) => width <= 16,
    plainOnly: true,
    shapes: [rows(4, 4, false), rows(4, 4, true)],
  },
  {
    // Layers of the smallest models: no step of theirs repays the second that SwiftShader takes to compile a larger tile.
    name: 'wide, small',
    serves: (_, width, inner) => Math.min(width, inner) < SMALL_SIDE,
    shapes: [columns(16, 2, false), WIDE_SUBGROUPS, narrowSubgroups(2), staged(4), staged(8)],
  },
  {
    name: 'wide',
    serves: () => true,
    shapes: [columns(16, 2, false), WIDE_SUBGROUPS, narrowSubgroups(4), staged(4), staged(8)],
  },
];

/** The class of a product that reads vectors of four. */
export function shapeClass(
  { branch }: Product,
  { rows, columns, inner }: { readonly rows: number; readonly columns: number; readonly inner: number },
): ShapeClass {
  const found = SHAPE_CLASSES.find(({ serves, plainOnly }) => !(branch && plainOnly) && serves(rows, columns, inner));
  if (!found) throw new RangeError(`No class serves ${rows} rows and ${columns} columns.`);
  return found;
}

/** Workgroups of a product of this shape. */
export function workgroupsOf(
  { kind, span }: MatmulShape,
  { rows, columns }: { rows: number; columns: number },
): number {
  const tiles = Math.ceil(rows / span[0]) * Math.ceil(columns / span[1]);
  return kind === 'any sizes' ? Math.ceil(tiles / ANY_WORKGROUP) : tiles;
}

const shaders = new Map<string, ShaderSource>();

/** The bindings of a branch and of a residual. */
const SERVED_BINDINGS = [5, 6, 8];

/** The shader of a variant; one text for each. */
export function productShader(product: Product, shape: MatmulShape): ShaderSource {
  const { form, type } = product;
  const branch = shape.servesAll === true || product.branch;
  const epilogue = { ...product.epilogue, residual: shape.servesAll === true || product.epilogue.residual };
  const extras = [
    branch && 'branch',
    epilogue.bias && 'bias',
    epilogue.residual && 'residual',
    !epilogue.vectors && 'elements',
  ].filter(Boolean);
  const name = `matmul-${form} ${type} ${shape.name}${extras.map((extra) => ` +${extra}`).join('')}`;
  const known = shaders.get(name);
  if (known) return known;
  const reading = (shape.kind === 'any sizes' ? weightElementCode : weightVectorCode)[type];
  const shader: ShaderSource = {
    name,
    code: shape.code({ form, branch, epilogue }) + paramsCode + reading + epilogueCode(epilogue),
    ...(shape.suits === 'software' ? { enables: ['subgroups'] } : {}),
    ...(shape.servesAll ? { optional: SERVED_BINDINGS } : {}),
  };
  shaders.set(name, shader);
  return shader;
}

/** A shader of every variant, with everything that may be added: what tests compile and search. */
export const weightMatmulShaders: readonly ShaderSource[] = [...new Set((['nt', 'nn'] as const).flatMap(shadersOf))];

function shadersOf(form: Form): ShaderSource[] {
  const all = SHAPE_CLASSES.flatMap(({ shapes }) => shapes);
  const wide = SHAPE_CLASSES.at(-1)?.shapes ?? [];
  const plain = { vectors: true, bias: false, residual: false };
  return [
    ...all.map((shape) => productShader({ form, type: 'f32', branch: false, epilogue: plain }, shape)),
    ...WEIGHT_TYPES.flatMap((type) =>
      wide.map((shape) => {
        const epilogue = { vectors: type === 'f32', bias: true, residual: type === 'f32' };
        return productShader({ form, type, branch: true, epilogue }, shape);
      }),
    ),
    ...WEIGHT_TYPES.map((type) =>
      productShader({ form, type, branch: false, epilogue: { vectors: false, bias: true, residual: true } }, ANY_SIZES),
    ),
  ];
}
