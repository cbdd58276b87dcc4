// Writes loops of a shader out. Not every compiler does, and an array that is indexed at run time lives in memory instead
// of registers; some functions of subgroups take constants only.

const LOOP = /for \(var (\w+) = 0u; \1 < (\w+); \1\+\+\) \{/g;

/** The index of the brace that closes the one before `begin`. */
function closingBrace(text: string, begin: number): number {
  let depth = 1;
  for (let i = begin; i < text.length; i += 1) {
    if (text[i] === '{') depth += 1;
    if (text[i] === '}') depth -= 1;
    if (depth === 0) return i;
  }
  throw new SyntaxError(`A loop of this shader does not end: ${text.slice(begin, begin + 80)}`);
}

/**
 * `text` with every loop `for (var x = 0u; x < LIMIT; x++) { … }` whose LIMIT is a key of `limits` replaced by that many
 * copies of its body, each a block of its own, in which x is a number. Throws SyntaxError for a loop without an end.
 */
export function unroll(text: string, limits: Readonly<Record<string, number>>): string {
  for (const loop of text.matchAll(LOOP)) {
    const [head, name = '', limit = ''] = loop;
    const count = limits[limit];
    if (count === undefined) continue;
    const begin = loop.index + head.length;
    const end = closingBrace(text, begin);
    const body = text.slice(begin, end);
    const variable = new RegExp(`\\b${name}\\b`, 'g');
    const copies = Array.from({ length: count }, (_, i) => `{${body.replace(variable, `${i}u`)}}`);
    return text.slice(0, loop.index) + unroll(copies.join('\n') + text.slice(end + 1), limits);
  }
  return text;
}
