// How a finished sum is written: `store(row, column, sum)` puts four columns of a row into c, as vectors where rows of c are
// whole vectors, else one by one. The text completes a product's shader.

export interface Epilogue {
  /** c's rows are whole vectors of four. */
  readonly vectors: boolean;
  /** A bias is added, one element a column: @binding(7). */
  readonly bias: boolean;
  /** A tensor laid out as c is added where params.residual says so: @binding(8). */
  readonly residual: boolean;
}

export function epilogueCode({ vectors, bias, residual }: Epilogue): string {
  const element = vectors ? 'vec4f' : 'f32';
  const declare = (wanted: boolean, binding: number, name: string) =>
    wanted ? `@group(0) @binding(${binding}) var<storage, read_write> ${name}: array<${element}>;\n` : '';
  const declarations = `
@group(0) @binding(3) var<storage, read_write> c: array<${element}>;
${declare(bias, 7, 'bias')}${declare(residual, 8, 'residual')}`;
  const value = (sum: string, at: string, column: string) =>
    `var value = params.alpha * ${sum}${bias ? ` + bias[${column}]` : ''};${
      residual ? ` if (params.residual != 0u) { value += residual[${at}]; }` : ''
    }`;
  if (vectors) {
    return `${declarations}
fn store(row: u32, column: u32, sum: vec4f) {
  if (column >= params.columns) {
    return;
  }
  let to = params.cColumn + column;
  let at = (row * params.cStride + to) / 4u;
  ${value('sum', 'at', 'to / 4u')}
  if (params.accumulate != 0u) {
    value += c[at];
  }
  c[at] = value;
}
`;
  }
  return `${declarations}
fn store(row: u32, column: u32, sum: vec4f) {
  if (column >= params.columns) {
    return;
  }
  let to = params.cColumn + column;
  let at = row * params.cStride + to;
  let count = min(params.columns - column, 4u);
  for (var i = 0u; i < count; i++) {
    ${value('sum[i]', 'at + i', 'to + i')}
    if (params.accumulate != 0u) {
      value += c[at + i];
    }
    c[at + i] = value;
  }
}
`;
}
