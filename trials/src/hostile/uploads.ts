// Files that are not what an upload has to be: cut, lying headers, other tensors, numbers that are none. Each is sent whole for a
// live lease, and must be refused by name at its commit without costing the lease.
import { ProtocolError } from '@weft/protocol';
import { announcement } from '../peers.ts';
import { type HostileCase, type Scene, told } from './case.ts';

interface Entry {
  dtype: unknown;
  shape: unknown;
  data_offsets: unknown;
}
type Header = Record<string, Entry>;

/** A safetensors file, whose length field may lie. */
function file(header: string, data: Uint8Array, length?: bigint): Uint8Array {
  const text = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + text.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(text.length), true);
  bytes.set(text, 8);
  bytes.set(data, 8 + text.length);
  return bytes;
}

function parts(good: Uint8Array): { readonly header: Header; readonly text: string; readonly data: Uint8Array } {
  const length = Number(new DataView(good.buffer, good.byteOffset).getBigUint64(0, true));
  const text = new TextDecoder().decode(good.subarray(8, 8 + length));
  const { __metadata__: _, ...header } = JSON.parse(text) as Header;
  return { header, text, data: good.subarray(8 + length) };
}

/** The file with one entry of its header changed. */
function changed(good: Uint8Array, change: (entry: Entry, header: Header, name: string) => void): Uint8Array {
  const { header, data } = parts(good);
  const [name] = Object.keys(header);
  const entry = name === undefined ? undefined : header[name];
  if (!entry || name === undefined) throw new Error('The upload has no tensor.');
  change(entry, header, name);
  return file(JSON.stringify(header), data);
}

/** The file with the float32 at element `at` of its data set; negative from the end. */
function withNumber(good: Uint8Array, at: number, value: number): Uint8Array {
  const bytes = good.slice();
  const { data } = parts(bytes);
  const from = at < 0 ? bytes.length + 4 * at : bytes.length - data.length + 4 * at;
  new DataView(bytes.buffer).setFloat32(from, value, true);
  return bytes;
}

const FORMAT = ['upload-format'];
const SHAPE = ['upload-shape'];

type Recipe = readonly [name: string, expected: readonly string[], make: (good: Uint8Array) => Uint8Array];

const CUT: readonly Recipe[] = [
  ['one byte', FORMAT, () => new Uint8Array(1)],
  ['eight zeros', FORMAT, () => new Uint8Array(8)],
  ['zeros only', FORMAT, (good) => new Uint8Array(good.length)],
  ['ones only', FORMAT, (good) => new Uint8Array(good.length).fill(0xff)],
  ['the last byte cut off', FORMAT, (good) => good.slice(0, -1)],
  ['the last element cut off', FORMAT, (good) => good.slice(0, -4)],
  ['the second half cut off', FORMAT, (good) => good.slice(0, good.length >> 1)],
  ['the header alone', FORMAT, (good) => file(parts(good).text, new Uint8Array())],
  ['the first byte cut off', FORMAT, (good) => good.slice(1)],
  ['a byte too many', FORMAT, (good) => Uint8Array.from([...good, 0])],
];

const LENGTHS: readonly Recipe[] = [0n, 1n, 2n, 100n, 2n ** 31n, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n].map(
  (length) => [
    `a header that says it has ${length} bytes`,
    FORMAT,
    (good) => file(parts(good).text, parts(good).data, length),
  ],
);

const HEADERS: readonly Recipe[] = (
  [
    ['null', 'null'],
    ['a list', '[]'],
    ['a number', '1'],
    ['no JSON', '{"a":'],
    ['spaces', ' '.repeat(200)],
    ['two documents', '{}{}'],
    ['objects 400 deep', `${'{"a":'.repeat(400)}1${'}'.repeat(400)}`],
    ['an entry that is null', '{"a":null}'],
    ['an entry that is a list', '{"a":[]}'],
    ['metadata that is a list', '{"__metadata__":[]}'],
    ['metadata of numbers', '{"__metadata__":{"a":1}}'],
    ['an entry of the prototype', '{"__proto__":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'],
  ] as const
).map(([name, text]): Recipe => [`a header that is ${name}`, FORMAT, (good) => file(text, parts(good).data)]);

const ENTRIES: readonly Recipe[] = [
  ['no tensors', ['upload-format', 'upload-shape'], (good) => file('{}', parts(good).data)],
  ['a header of nothing and no data', SHAPE, () => file('{}', new Uint8Array())],
  [
    'a header that is not UTF-8',
    FORMAT,
    (good) => {
      const bytes = good.slice();
      bytes[12] = 0xff;
      return bytes;
    },
  ],
  [
    'a header as long as the file allows',
    FORMAT,
    (good) => file(`{${' '.repeat(good.length - 10)}}`, new Uint8Array()),
  ],
  [
    'a tensor twice',
    FORMAT,
    (good) => {
      const { text, data } = parts(good);
      const first = /"[^"]+":\{"dtype":"F32"[^}]*\}/.exec(text)?.[0] ?? '';
      const other = first
        .replace(/"data_offsets":\[\d+,\d+\]/, '"data_offsets":[0,0]')
        .replace(/"shape":\[[^\]]*\]/, '"shape":[0]');
      return file(text.replace(first, `${first},${other}`), data);
    },
  ],
  [
    'overlapping tensors',
    FORMAT,
    (good) =>
      changed(good, (entry, header) => {
        for (const other of Object.values(header)) other.data_offsets = entry.data_offsets;
      }),
  ],
  [
    'a hole between tensors',
    FORMAT,
    (good) =>
      changed(good, (entry) => {
        const [begin = 0, end = 0] = entry.data_offsets as number[];
        entry.data_offsets = [begin + 4, end + 4];
      }),
  ],
  [
    'offsets the wrong way round',
    FORMAT,
    (good) =>
      changed(good, (entry) => {
        entry.data_offsets = [...(entry.data_offsets as number[])].reverse();
      }),
  ],
  ...[[-4, 0], [0.5, 4.5], ['0', '4'], [0], [0, 4, 8], {}, null, [0, 2 ** 53], [0, 1e300]].map(
    (offsets): Recipe => [
      `offsets ${JSON.stringify(offsets)}`,
      FORMAT,
      (good) =>
        changed(good, (entry) => {
          entry.data_offsets = offsets;
        }),
    ],
  ),
  ...[[-1, 2], [1.5, 2], ['1'], {}, null, [2 ** 40, 2 ** 40], [1e300], Array(3000).fill(1), [0]].map(
    (shape): Recipe => [
      `shape ${JSON.stringify(shape).slice(0, 30)}`,
      FORMAT,
      (good) =>
        changed(good, (entry) => {
          entry.shape = shape;
        }),
    ],
  ),
  [
    'a shape of three dimensions',
    SHAPE,
    (good) =>
      changed(good, (entry) => {
        entry.shape = [...(entry.shape as number[]), 1];
      }),
  ],
  [
    'a flat shape',
    SHAPE,
    (good) =>
      changed(good, (entry) => {
        entry.shape = [(entry.shape as number[]).reduce((a, b) => a * b, 1)];
      }),
  ],
  [
    'a transposed shape',
    ['upload-shape', 'upload-rank'],
    (good) =>
      changed(good, (entry) => {
        entry.shape = [...(entry.shape as number[])].reverse();
      }),
  ],
  [
    'twice the rank and half the rest',
    SHAPE,
    (good) =>
      changed(good, (entry) => {
        const [rows = 0, columns = 0] = entry.shape as number[];
        entry.shape = [rows * 2, columns / 2];
      }),
  ],
  ...['F16', 'BF16', 'F64', 'I8', 'f32', 'F32 ', 'Q4', '', 'constructor', 7, null].map(
    (dtype): Recipe => [
      `element type ${JSON.stringify(dtype)}`,
      FORMAT,
      (good) =>
        changed(good, (entry) => {
          entry.dtype = dtype;
        }),
    ],
  ),
  [
    'whole numbers',
    ['upload-dtype'],
    (good) =>
      changed(good, (entry) => {
        entry.dtype = 'I32';
      }),
  ],
  ...['lora_C', 'x', '__proto__', 'constructor', '\u0000', '../../etc/passwd', 'x'.repeat(1000)].map(
    (name): Recipe => [
      `a tensor called ${JSON.stringify(name).slice(0, 20)}`,
      name === '__proto__' ? ['upload-shape', 'upload-format'] : SHAPE,
      (good) =>
        changed(good, (entry, header, old) => {
          delete header[old];
          Object.defineProperty(header, name, { value: entry, enumerable: true });
        }),
    ],
  ),
  [
    'a tensor too many',
    SHAPE,
    (good) =>
      changed(good, (_entry, header) => {
        header.stray = { dtype: 'F32', shape: [0], data_offsets: [0, 0] };
      }),
  ],
  [
    'A and B exchanged',
    ['upload-shape', 'upload-rank'],
    (good) => {
      const { text, data } = parts(good);
      return file(
        text.replaceAll('lora_A', 'lora_X').replaceAll('lora_B', 'lora_A').replaceAll('lora_X', 'lora_B'),
        data,
      );
    },
  ],
];

const NUMBERS: readonly Recipe[] = [
  ...[Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY].flatMap((value): Recipe[] =>
    [0, 1000, -1].map((at) => [
      `${value} at element ${at}`,
      ['upload-non-finite'],
      (good) => withNumber(good, at, value),
    ]),
  ),
  ...[3e38, -3e38, 1e6].map(
    (value): Recipe => [`${value} in the last place`, ['upload-norm'], (good) => withNumber(good, -1, value)],
  ),
];

export function uploadCases(): HostileCase[] {
  const recipes = [...CUT, ...LENGTHS, ...HEADERS, ...ENTRIES, ...NUMBERS];
  return recipes
    .map(([name, expected, make]) => ({
      kind: 'upload' as const,
      name,
      // What is too large for its grant is refused when it is announced.
      expected: [...expected, 'upload-too-large'],
      run: ({ attacker, lease, good }: Scene) => told(attacker.upload(lease, make(good))),
    }))
    .concat([
      {
        kind: 'upload',
        name: 'other bytes than announced',
        expected: ['upload-hash'],
        run: ({ attacker, lease, good }) => told(attacker.upload(lease, good, { sha256: '0'.repeat(64) })),
      },
      {
        kind: 'upload',
        name: 'the same chunk again and again, then a hole',
        expected: ['upload-offset'],
        run: async ({ attacker, lease, good }) => {
          const begin = { ...announcement(lease, good), sha256: '1'.repeat(64) };
          await attacker.request('upload:begin', begin);
          const chunk = { leaseId: lease.leaseId, offset: 0, bytes: good.subarray(0, 1000) };
          for (let i = 0; i < 20; i += 1) {
            const { offset } = await attacker.request('upload:chunk', chunk);
            if (offset !== 1000) throw new ProtocolError('internal', `The upload stands at ${offset}, not at 1000.`);
          }
          return told(attacker.request('upload:chunk', { ...chunk, offset: 1001 }));
        },
      },
    ]);
}
