import { expect, it } from 'vitest';
import { sha256Hex, sha256HexOfText } from './hash.ts';

it('gives the published SHA-256 values, of views too', async () => {
  expect(await sha256HexOfText('')).toBe('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
  const abc = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad';
  expect(await sha256HexOfText('abc')).toBe(abc);
  expect(await sha256Hex(new TextEncoder().encode('xabcx').subarray(1, 4))).toBe(abc);
});
