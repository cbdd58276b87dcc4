import { expect, it } from 'vitest';
import { unroll } from './unroll.ts';

it('writes loops out, and loops in them, and no others', () => {
  const text = `a();
for (var i = 0u; i < TWO; i++) { for (var n = 0u; n < count; n++) { for (var j = 0u; j < TWO; j++) { b(i, j, ij); } } }
for (var k = 0u; k < NONE; k++) { c(k); }
d();`;
  expect(unroll(text, { TWO: 2, NONE: 0 })).toBe(`a();
{ for (var n = 0u; n < count; n++) { { b(0u, 0u, ij); }
{ b(0u, 1u, ij); } } }
{ for (var n = 0u; n < count; n++) { { b(1u, 0u, ij); }
{ b(1u, 1u, ij); } } }

d();`);
  expect(unroll(text, {})).toBe(text);
});

it('refuses a loop that does not end', () => {
  expect(() => unroll('for (var i = 0u; i < TWO; i++) { {}', { TWO: 2 })).toThrow(SyntaxError);
});
