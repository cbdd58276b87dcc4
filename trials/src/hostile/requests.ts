// HTTP as no browser sends it, byte by byte over a plain connection: paths that climb, ranges that end before they begin, headers
// without end, bodies nobody asked for. Each is answered with `{ error: WireError }`.
import { connect } from 'node:net';
import { wireErrorSchema } from '@weft/protocol';
import { ADMIN_TOKEN } from '../server-process.ts';
import type { HostileCase, Outcome, Scene } from './case.ts';

const ANSWER_MS = 20_000;

/** Sends the text and waits for the end of the answer. */
function exchange(url: string, text: string): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname);
    let said = '';
    const end = () => {
      clearTimeout(timer);
      socket.destroy();
      resolve(said);
    };
    const timer = setTimeout(() => {
      socket.destroy();
      reject(
        new Error(
          `No answer to ${JSON.stringify(text.slice(0, 60))} within ${ANSWER_MS / 1000} s; so far: ${said.slice(0, 200)}`,
        ),
      );
    }, ANSWER_MS);
    socket.on('data', (data) => {
      said += data.toString('latin1');
    });
    socket.on('close', end);
    // A server that refuses while it is still being sent to resets the line; what it said before counts.
    socket.on('error', end);
    socket.write(text, 'latin1');
  });
}

/** The code of the error an answer carries. */
export function codeOf(answer: string): Outcome {
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? Number.NaN);
  if (Number.isNaN(status)) return 'closed';
  if (status < 400) return 'accepted';
  const body = answer.slice(answer.indexOf('\r\n\r\n') + 4);
  const json = body.slice(body.indexOf('{'), body.lastIndexOf('}') + 1);
  try {
    const parsed = wireErrorSchema.safeParse((JSON.parse(json) as { error: unknown }).error);
    if (parsed.success) return parsed.data.code;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  return `status ${status} without a typed error`;
}

const request = (line: string, headers: readonly string[] = [], body = ''): string =>
  `${[line, 'Host: localhost', 'Connection: close', ...headers].join('\r\n')}\r\n\r\n${body}`;
const get = (path: string, ...headers: string[]): string => request(`GET ${path} HTTP/1.1`, headers);

const NOT_FOUND = ['not-found'];
const BAD = ['bad-message'];
/** Addresses and bodies that are refused for their form, or because nothing is there: both are right. */
const EITHER = ['bad-message', 'not-found', 'unknown-run'];

const token = `Authorization: Bearer ${ADMIN_TOKEN}`;
const zeros = '0'.repeat(64);

type Recipe = readonly [name: string, expected: readonly string[], make: (scene: Scene) => string];

const PATHS: readonly Recipe[] = [
  '/../../../../etc/passwd',
  '/..%2f..%2f..%2fetc%2fpasswd',
  '/%2e%2e/%2e%2e/etc/passwd',
  '/assets/..%5c..%5c..%5cetc%5cpasswd',
  '/assets/%00',
  '/assets/%c0%ae%c0%ae/passwd',
  '/%',
  '/%zz',
  '/admin/../../package.json',
  '//etc/passwd',
  '/.git/config',
  '/nothing-here',
  `/${'x'.repeat(8000)}`,
  '/api/runs/../../../etc/passwd',
  '/api/runs/..%2f..%2fetc',
  '/api/runs/none',
  '/api/runs/none/manifest',
  '/api/runs/__proto__',
  '/api/runs/constructor/manifest',
  '/api/runs/%00',
  `/api/runs/${'x'.repeat(65)}`,
  '/api/blobs/../../../etc/passwd',
  '/api/blobs/..%2f..%2fadmin.json',
  '/api/blobs/short',
  `/api/blobs/${'F'.repeat(64)}`,
  `/api/blobs/${'g'.repeat(64)}`,
  `/api/blobs/${zeros}`,
  `/api/blobs/${zeros}0`,
  `/api/blobs/${zeros}?x=${'y'.repeat(5000)}`,
].map((path): Recipe => [`GET ${path.slice(0, 60)}`, EITHER, () => get(path)]);

const RANGES: readonly Recipe[] = ['bytes=5-2', 'bytes=99999999999-', 'bytes=-0', `bytes=${'9'.repeat(300)}-`].map(
  (range): Recipe => [
    `Range: ${range.slice(0, 30)}`,
    BAD,
    ({ lease }) => get(`/api/blobs/${lease.start.sha256}`, `Range: ${range}`),
  ],
);

const METHODS: readonly Recipe[] = [
  ...['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND'].map(
    (method): Recipe => [`${method} /api/runs`, EITHER, () => request(`${method} /api/runs HTTP/1.1`)],
  ),
  ['a method that is none', BAD, () => request('STEAL /api/runs HTTP/1.1')],
  ['a method in lower case', BAD, () => request('get /api/runs HTTP/1.1')],
  ['CONNECT', ['bad-message', 'closed'], () => request('CONNECT /api/runs HTTP/1.1')],
];

const BODIES: readonly Recipe[] = (
  [
    ['broken JSON', 'application/json', '{"a":'],
    ['JSON with keys of prototypes', 'application/json', '{"__proto__":{"a":1}}'],
    ['JSON 10,000 deep', 'application/json', '['.repeat(10_000)],
    ['an empty body that is called JSON', 'application/json', ''],
    ['a form', 'application/x-www-form-urlencoded', 'a=1'],
    ['an upload of a form', 'multipart/form-data; boundary=x', '--x--'],
    ['a type that is none', 'text', 'a'],
    ['a type without end', `text/${'x'.repeat(5000)}`, 'a'],
    ['XML', 'application/xml', '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'],
    ['two megabytes', 'application/json', `"${'x'.repeat(2_000_000)}"`],
  ] as const
).map(
  ([name, type, body]): Recipe => [
    `POST ${name}`,
    [...EITHER, 'closed'],
    () => request('POST /api/runs HTTP/1.1', [`Content-Type: ${type}`, `Content-Length: ${body.length}`], body),
  ],
);

const LINES: readonly Recipe[] = [
  ['no HTTP', BAD, () => 'hello\r\n\r\n'],
  ['a TLS greeting', BAD, () => '\u0016\u0003\u0001\u0002\u0000\u0001\u0000\u0001\u00fc\u0003\u0003'],
  ['HTTP/3.0', BAD, () => 'GET / HTTP/3.0\r\nHost: localhost\r\n\r\n'],
  // Node itself answers this one, before anybody is asked.
  ['no host', ['status 400 without a typed error'], () => 'GET /api/runs HTTP/1.1\r\nConnection: close\r\n\r\n'],
  ['a header without a colon', BAD, () => get('/api/runs', 'nonsense')],
  ['a header with a zero byte', BAD, () => get('/api/runs', 'x: a\u0000b')],
  ['a header of 100 kB', BAD, () => get('/api/runs', `x: ${'y'.repeat(100_000)}`)],
  ['ten thousand headers', BAD, () => get('/api/runs', ...Array.from({ length: 10_000 }, (_, i) => `x${i}: y`))],
  ['two lengths', BAD, () => request('POST /api/runs HTTP/1.1', ['Content-Length: 1', 'Content-Length: 2'], 'ab')],
  [
    'a length and chunks',
    BAD,
    () => request('POST /api/runs HTTP/1.1', ['Content-Length: 1', 'Transfer-Encoding: chunked'], '0\r\n\r\n'),
  ],
  ['a length below zero', BAD, () => request('POST /api/runs HTTP/1.1', ['Content-Length: -1'])],
  [
    'a chunk that is none',
    [...EITHER, 'closed'],
    () =>
      request('POST /api/runs HTTP/1.1', ['Content-Type: application/json', 'Transfer-Encoding: chunked'], 'zz\r\n'),
  ],
];

const AUTHORISED: readonly Recipe[] = [
  ...['adapter/adapter.zip', 'adapter/README.md', 'events.jsonl', 'contributors'].flatMap((file): Recipe[] =>
    ['', 'Bearer guess', `bearer ${ADMIN_TOKEN}x`, 'Basic YTpi', `Bearer ${'x'.repeat(7000)}`].map(
      (given): Recipe => [
        `${file} with "${given.slice(0, 14)}"`,
        ['unauthorised'],
        ({ runId }) => get(`/api/runs/${runId}/${file}`, `Authorization: ${given}`),
      ],
    ),
  ),
  ...[
    'rank=-1',
    'rank=0',
    'rank=1e99',
    'rank=x',
    'rank=1&rank=2',
    'version=-1',
    'version=1.5',
    'version=NaN',
    'rank=%00',
  ].map(
    (query): Recipe => [
      `adapter.zip?${query}`,
      BAD,
      ({ runId }) => get(`/api/runs/${runId}/adapter/adapter.zip?${query}`, token),
    ],
  ),
  [
    'a version that is not there',
    NOT_FOUND,
    ({ runId }) => get(`/api/runs/${runId}/adapter/adapter.zip?version=999`, token),
  ],
  [
    'a file that is none of the folder’s',
    EITHER,
    ({ runId }) => get(`/api/runs/${runId}/adapter/..%2frun.json`, token),
  ],
];

/** Each takes the server's patience, and so goes first. */
const SLOW: readonly Recipe[] = [
  ['a header that comes slowly and never ends', BAD, () => 'GET / HTTP/1.1\r\nHost: localhost\r\nx: '],
  [
    'a body that never comes',
    [...BAD, 'not-found'],
    () => request('POST /api/runs HTTP/1.1', ['Content-Type: application/json', 'Content-Length: 100'], 'a'),
  ],
];

export function requestCases(): HostileCase[] {
  const recipes = [...SLOW, ...PATHS, ...RANGES, ...METHODS, ...BODIES, ...LINES, ...AUTHORISED];
  return recipes.map(([name, expected, make]) => ({
    kind: 'request',
    name,
    expected,
    run: async (scene) => codeOf(await exchange(scene.url, make(scene))),
  }));
}
