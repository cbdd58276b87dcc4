import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sha256Hex } from './hash.ts';
import { parseSafetensorsHeader, readSafetensors, toFloat32, toFloat64 } from './safetensors.ts';
import { type TensorToWrite, writeSafetensors } from './safetensors-write.ts';

/** A file from a header document, or the raw text of one, and its data. */
function file(header: unknown, data: number | Uint8Array = 0, claimed?: bigint): Uint8Array {
  const json = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const body = typeof data === 'number' ? new Uint8Array(data) : data;
  const bytes = new Uint8Array(8 + json.length + body.length);
  new DataView(bytes.buffer).setBigUint64(0, claimed ?? BigInt(json.length), true);
  bytes.set(json, 8);
  bytes.set(body, 8 + json.length);
  return bytes;
}

const f32 = (shape: number[], from: number, to: number) => ({ dtype: 'F32', shape, data_offsets: [from, to] });

const tensor = fc
  .record({
    name: fc.string({ minLength: 1, unit: 'grapheme' }).filter((name) => name !== '__metadata__'),
    shape: fc.array(fc.nat(5), { maxLength: 3 }),
    dtype: fc.constantFrom('F32' as const, 'F64' as const),
  })
  .chain(({ name, shape, dtype }) => {
    const length = shape.reduce((product, size) => product * size, 1);
    const number = fc.double({ noDefaultInfinity: false });
    const data =
      dtype === 'F64'
        ? fc.float64Array({ minLength: length, maxLength: length })
        : fc.array(number, { minLength: length, maxLength: length }).map((values) => Float32Array.from(values));
    return data.map((values): TensorToWrite => ({ name, shape, dtype, data: values }));
  });
const tensors = fc.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 6 });

describe('writeSafetensors and readSafetensors', () => {
  it('give back every tensor, name and metadata', () => {
    fc.assert(
      fc.property(tensors, fc.dictionary(fc.string(), fc.string(), { noNullPrototype: true }), (written, metadata) => {
        fc.pre(!Object.hasOwn(metadata, '__proto__'));
        const read = readSafetensors(writeSafetensors(written, metadata));
        expect([...read.tensors.keys()].sort()).toEqual(written.map(({ name }) => name).sort());
        expect({ ...read.metadata }).toEqual(metadata);
        for (const { name, dtype, shape, data } of written) {
          const raw = read.tensors.get(name);
          if (!raw) throw new Error(`${name} is gone`);
          expect([raw.dtype, raw.shape]).toEqual([dtype, shape]);
          expect(dtype === 'F64' ? toFloat64(raw) : toFloat32(raw)).toEqual(data);
        }
      }),
    );
  });

  it('write equal content as equal bytes, in whatever order it comes', async () => {
    await fc.assert(
      fc.asyncProperty(tensors, async (written) => {
        const there = writeSafetensors(written, { b: '2', a: '1' });
        const back = writeSafetensors([...written].reverse(), { a: '1', b: '2' });
        expect(await sha256Hex(back)).toBe(await sha256Hex(there));
      }),
    );
  });

  it('align the data to eight bytes, so that it can be viewed where it lies', () => {
    for (const name of ['a', 'ab', 'abc', 'abcd', 'abcde']) {
      const bytes = writeSafetensors([{ name, dtype: 'F32', shape: [2], data: Float32Array.of(1, 2) }]);
      const { dataOffset } = parseSafetensorsHeader(bytes, bytes.length);
      expect(dataOffset % 8).toBe(0);
      const raw = readSafetensors(bytes).tensors.get(name);
      expect(raw && toFloat32(raw).buffer).toBe(bytes.buffer);
    }
  });

  it('read a file that begins at an odd byte of its buffer', () => {
    const bytes = writeSafetensors([{ name: 'x', dtype: 'F32', shape: [3], data: Float32Array.of(1, -2, 3.5) }]);
    const shifted = new Uint8Array(bytes.length + 3).subarray(3);
    shifted.set(bytes);
    const raw = readSafetensors(shifted).tensors.get('x');
    expect(raw && [...toFloat32(raw)]).toEqual([1, -2, 3.5]);
    // A header that is not padded puts the data at odd bytes too; and slices of a Buffer are views.
    for (const pad of ['', ' ', '  ', '   ']) {
      const odd = file(`${JSON.stringify({ x: f32([2], 0, 8) })}${pad}`, new Uint8Array(Float32Array.of(7, -8).buffer));
      for (const source of [odd, Buffer.from(odd)]) {
        const unpadded = readSafetensors(source).tensors.get('x');
        expect(unpadded && [...toFloat32(unpadded)]).toEqual([7, -8]);
        expect(unpadded && [...toFloat64(unpadded)]).toEqual([7, -8]);
      }
    }
  });

  it('widen half precision exactly, and round to it', () => {
    const bits = Uint16Array.of(0x3c00, 0xc000, 0x7bff, 0x0001, 0x7c00, 0x8000);
    const half = file({ x: { dtype: 'F16', shape: [6], data_offsets: [0, 12] } }, new Uint8Array(bits.buffer));
    const raw = readSafetensors(half).tensors.get('x');
    if (!raw) throw new Error('x is gone');
    expect([...toFloat32(raw)]).toEqual([1, -2, 65504, 2 ** -24, Number.POSITIVE_INFINITY, -0]);
    expect([...toFloat64(raw)]).toEqual([...toFloat32(raw)]);
    const written = writeSafetensors([
      { name: 'x', dtype: 'F16', shape: [3], data: Float32Array.of(1 / 3, 65519, -(2 ** -24)) },
    ]);
    const again = readSafetensors(written).tensors.get('x');
    expect(again && [...toFloat32(again)]).toEqual([0.333251953125, 65504, -(2 ** -24)]);

    const brain = Uint16Array.of(0x3f80, 0xc040, 0x7f80, 0x0001);
    const wide = file({ x: { dtype: 'BF16', shape: [4], data_offsets: [0, 8] } }, new Uint8Array(brain.buffer));
    const brainRaw = readSafetensors(wide).tensors.get('x');
    expect(brainRaw && [...toFloat32(brainRaw)]).toEqual([1, -3, Number.POSITIVE_INFINITY, 2 ** -133]);
  });

  it('hold tensors without elements, scalars and no tensor at all', () => {
    const { tensors: read } = readSafetensors(
      writeSafetensors([
        { name: 'none', dtype: 'F32', shape: [0, 7], data: new Float32Array(0) },
        { name: 'loss', dtype: 'F32', shape: [], data: Float32Array.of(0.5) },
      ]),
    );
    expect(read.get('none')?.shape).toEqual([0, 7]);
    expect(read.get('loss')?.shape).toEqual([]);
    expect(readSafetensors(writeSafetensors([])).tensors.size).toBe(0);
  });

  it('know the header from the head of a longer file', () => {
    const bytes = writeSafetensors([{ name: 'x', dtype: 'F32', shape: [100], data: new Float32Array(100) }]);
    const { entries, dataOffset } = parseSafetensorsHeader(bytes.subarray(0, bytes.length - 400), bytes.length);
    expect(entries.get('x')).toEqual({ name: 'x', dtype: 'F32', shape: [100], begin: dataOffset, end: bytes.length });
  });
});

describe('what is wrong with a file', () => {
  const good = writeSafetensors([
    { name: 'a', dtype: 'F32', shape: [2], data: Float32Array.of(1, 2) },
    { name: 'b', dtype: 'F32', shape: [1], data: Float32Array.of(3) },
  ]);
  const cases: [string, Uint8Array, string, RegExp][] = [
    ['no bytes', new Uint8Array(0), 'safetensors-truncated', /model\.safetensors has 0 bytes/],
    ['half a length', good.subarray(0, 5), 'safetensors-truncated', /has 5 bytes/],
    ['a header cut off', good.subarray(0, 40), 'safetensors-header', /longer than the file allows \(40 bytes\)/],
    ['a header longer than the file', file('{}', 0, 1000n), 'safetensors-header', /claims a header of 1000 bytes/],
    ['a header of 2⁶³ bytes', file('{}', 0, 2n ** 63n), 'safetensors-header', /claims a header of 9223372036854775808/],
    ['data cut off', good.subarray(0, good.length - 1), 'safetensors-truncated', /ends before the data of b/],
    ['bytes left over', file({ a: f32([1], 0, 4) }, 9), 'safetensors-header', /has 5 bytes after its last tensor/],
    ['no JSON', file('{"a": '), 'safetensors-header', /is not JSON/],
    ['no UTF-8', file('', Uint8Array.of(0xff, 0xfe), 2n), 'safetensors-header', /is not JSON/],
    ['no object', file('[]'), 'safetensors-header', /not a JSON object/],
    ['null', file('null'), 'safetensors-header', /not a JSON object/],
    ['metadata of numbers', file({ __metadata__: { a: 1 } }), 'safetensors-header', /metadata/],
    [
      'an entry without offsets',
      file({ a: { dtype: 'F32', shape: [1] } }, 4),
      'safetensors-header',
      /entry of a is malf/,
    ],
    ['a negative size', file({ a: f32([-1], 0, 4) }, 4), 'safetensors-header', /entry of a is malformed/],
    ['a fraction', file({ a: f32([0.5], 0, 2) }, 2), 'safetensors-header', /entry of a is malformed/],
    [
      'an unknown type',
      file({ a: { ...f32([1], 0, 4), dtype: 'F8' } }, 4),
      'safetensors-tensor',
      /a has element type F8/,
    ],
    ['an inherited type', file({ a: { ...f32([1], 0, 4), dtype: 'toString' } }, 4), 'safetensors-tensor', /toString/],
    [
      'shape and bytes that differ',
      file({ a: f32([2, 3], 0, 20) }, 20),
      'safetensors-tensor',
      /\[2,3\], 24 bytes, but has 20/,
    ],
    ['offsets that run back', file({ a: f32([1], 8, 4) }, 8), 'safetensors-tensor', /but has -4 bytes/],
    [
      'tensors that overlap',
      file({ a: f32([2], 0, 8), b: f32([2], 4, 12) }, 12),
      'safetensors-header',
      /data of b does not/,
    ],
    ['a hole', file({ a: f32([1], 0, 4), b: f32([1], 8, 12) }, 12), 'safetensors-header', /data of b does not follow/],
    ['data that starts late', file({ a: f32([1], 4, 8) }, 8), 'safetensors-header', /data of a does not follow/],
  ];
  it.each(cases)('%s', (_, bytes, code, message) => {
    const read = () => readSafetensors(bytes, 'model.safetensors');
    expect(read).toThrow(expect.objectContaining({ name: 'FormatError', code }));
    expect(read).toThrow(message);
  });

  it('is always said in a FormatError, whatever the bytes', () => {
    const damaged = fc.tuple(fc.nat(good.length - 1), fc.nat(255)).map(([place, value]) => {
      const bytes = good.slice();
      bytes[place] = value;
      return bytes;
    });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 64 }), damaged), (bytes) => {
        try {
          readSafetensors(bytes);
        } catch (error) {
          expect(error).toMatchObject({ name: 'FormatError' });
        }
      }),
      { numRuns: 500 },
    );
  });

  it('is a whole-number tensor where numbers with a point are needed', () => {
    const raw = readSafetensors(file({ x: { dtype: 'I64', shape: [1], data_offsets: [0, 8] } }, 8)).tensors.get('x');
    expect(() => raw && toFloat32(raw, 'x')).toThrow(/x has element type I64/);
  });

  it('is refused when writing: shapes, repeated names, numbers too large for the type', () => {
    const x = { name: 'x', dtype: 'F32', shape: [2], data: Float32Array.of(1, 2) } as const;
    const refuse = (written: TensorToWrite[], message: RegExp) => {
      expect(() => writeSafetensors(written)).toThrow(expect.objectContaining({ code: 'safetensors-tensor' }));
      expect(() => writeSafetensors(written)).toThrow(message);
    };
    refuse([{ ...x, shape: [3] }], /x is \[3\] but has 2 elements/);
    refuse([x, x], /Two tensors are called x/);
    refuse([{ ...x, dtype: 'F16', data: Float32Array.of(1, 65520) }], /x holds 65520 at element 1, which F16 cannot/);
    refuse([{ ...x, data: Float64Array.of(-1e39, 0) }], /x holds -1e\+39 at element 0, which F32 cannot/);
  });
});
