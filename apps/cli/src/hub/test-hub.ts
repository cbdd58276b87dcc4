// A hub for tests on the loopback device: the routes of the Hugging Face hub that a pull uses, and ways to make them fail.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';

/** A file of a repository; those with `lfs` are redirected to the store, as on the hub. */
export interface TestFile {
  readonly bytes: Uint8Array;
  readonly lfs?: boolean;
}

export interface TestRepo {
  /** Branches, tags and commits to commits. */
  readonly revisions: Readonly<Record<string, string>>;
  readonly files: Readonly<Record<string, TestFile>>;
}

/** One request as the hub saw it. `bytes` counts the body. */
export interface Seen {
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  bytes: number;
}

/** What to do instead of the right thing; null for the right thing. */
export type Fault =
  | { readonly kind: 'cut'; readonly after: number; readonly ranges?: false }
  /** The body comes in pieces of 16 KiB with a pause after each. */
  | { readonly kind: 'slow'; readonly pauseMs: number }
  | { readonly kind: 'silent'; readonly after: number }
  | { readonly kind: 'damage' }
  | { readonly kind: 'no-ranges' }
  | { readonly kind: 'status'; readonly status: number; readonly headers?: Readonly<Record<string, string>> };

export interface TestHub {
  readonly url: string;
  /** Where large files are: another origin. */
  readonly storeUrl: string;
  readonly seen: Seen[];
  /** Asked before each answer; `nth` counts the requests for this path from 0. */
  fault: (path: string, nth: number) => Fault | null;
  /** Demanded of every request to the hub itself when set. */
  token: string | null;
  close(): Promise<void>;
}

const PAGE = 3;
const PIECE = 16 * 1024;

export const gitOid = (bytes: Uint8Array): string =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

const listen = async (answer: (request: IncomingMessage, response: ServerResponse) => Promise<void>) => {
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      response.destroy(error instanceof Error ? error : new Error(String(error)));
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  };
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close };
};

export async function startTestHub(repos: Readonly<Record<string, TestRepo>>): Promise<TestHub> {
  const seen: Seen[] = [];
  const note = (request: IncomingMessage): Seen => {
    const { range, authorization } = request.headers;
    const entry = { path: new URL(request.url ?? '', 'http://x').pathname, range, authorization, bytes: 0 };
    seen.push(entry);
    return entry;
  };
  const faultOf = ({ path }: Seen) => hub.fault(path, seen.filter((earlier) => earlier.path === path).length - 1);

  const store = await listen(async (request, response) => {
    const entry = note(request);
    const file = Object.values(repos)
      .flatMap(({ files }) => Object.values(files))
      .find(({ bytes }) => `/${sha256(bytes)}` === entry.path);
    if (!file) return refuse(response, 404);
    await serve(file.bytes, entry, faultOf(entry), response, request.method ?? 'GET');
  });

  const main = await listen(async (request, response) => {
    const entry = note(request);
    const fault = faultOf(entry);
    if (fault?.kind === 'status') return refuse(response, fault.status, fault.headers);
    if (hub.token !== null && entry.authorization !== `Bearer ${hub.token}`)
      return refuse(response, 401, { 'x-error-code': 'GatedRepo' });
    const url = new URL(request.url ?? '', main.url);
    const route =
      /^\/api\/models\/([^/]+\/[^/]+)\/(revision|tree)\/([^/]+)$/.exec(url.pathname) ??
      /^\/([^/]+\/[^/]+)\/(resolve)\/([^/]+)\/(.+)$/.exec(url.pathname);
    if (!route) return refuse(response, 404);
    const [, name = '', verb, revision = '', path = ''] = route;
    const repo = repos[name];
    // As the hub does: what does not exist and what is private look the same to strangers.
    if (!repo) return refuse(response, 401, { 'x-error-code': 'RepoNotFound' });
    const commit = repo.revisions[decodeURIComponent(revision)];
    if (commit === undefined) return refuse(response, 404, { 'x-error-code': 'RevisionNotFound' });
    if (verb === 'revision') return json(response, { _id: '0', id: name, sha: commit, lastModified: 0 });
    if (verb === 'tree') {
      const all = Object.entries(repo.files).map(([file, { bytes, lfs }]) => ({
        type: 'file',
        path: file,
        size: bytes.length,
        oid: gitOid(lfs ? new TextEncoder().encode('pointer') : bytes),
        ...(lfs ? { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 134 } } : {}),
      }));
      const listed = [...all, { type: 'directory', path: 'onnx', size: 0, oid: gitOid(new Uint8Array()) }];
      const from = Number(url.searchParams.get('cursor') ?? 0);
      url.searchParams.set('cursor', String(from + PAGE));
      const more = from + PAGE < listed.length;
      return json(response, listed.slice(from, from + PAGE), more ? { link: `<${url.href}>; rel="next"` } : {});
    }
    const file = repo.files[decodeURIComponent(path)];
    if (!file) return refuse(response, 404, { 'x-error-code': 'EntryNotFound' });
    response.setHeader('x-repo-commit', commit);
    if (!file.lfs) return serve(file.bytes, entry, fault, response, request.method ?? 'GET');
    response.writeHead(302, {
      location: `${store.url}/${sha256(file.bytes)}`,
      'x-linked-size': file.bytes.length,
      'x-linked-etag': `"${sha256(file.bytes)}"`,
    });
    response.end();
  });

  const hub: TestHub = {
    url: main.url,
    storeUrl: store.url,
    seen,
    fault: () => null,
    token: null,
    close: async () => {
      await main.close();
      await store.close();
    },
  };
  return hub;
}

function refuse(response: ServerResponse, status: number, headers: Readonly<Record<string, string>> = {}): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify({ error: `refused with ${status}` }));
}

function json(response: ServerResponse, body: unknown, headers: Readonly<Record<string, string>> = {}): void {
  response.writeHead(200, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
}

async function serve(
  whole: Uint8Array,
  entry: Seen,
  fault: Fault | null,
  response: ServerResponse,
  method: string,
): Promise<void> {
  if (fault?.kind === 'status') return refuse(response, fault.status, fault.headers);
  const asked = /^bytes=(\d+)-(\d*)$/.exec(entry.range ?? '');
  const ranges = !(fault?.kind === 'no-ranges' || (fault?.kind === 'cut' && fault.ranges === false));
  const range = ranges ? asked : null;
  const first = range ? Number(range[1]) : 0;
  const last = range?.[2] ? Number(range[2]) : whole.length - 1;
  if (range && first >= whole.length) return refuse(response, 416, { 'content-range': `bytes */${whole.length}` });
  const bytes = whole.slice(first, last + 1);
  if (fault?.kind === 'damage') bytes.fill(0x21, bytes.length >> 1, (bytes.length >> 1) + 9);
  response.writeHead(range ? 206 : 200, {
    'content-length': bytes.length,
    etag: `"${sha256(whole)}"`,
    ...(ranges ? { 'accept-ranges': 'bytes' } : {}),
    ...(range ? { 'content-range': `bytes ${first}-${last}/${whole.length}` } : {}),
  });
  if (method === 'HEAD') {
    response.end();
    return;
  }
  const until = fault?.kind === 'cut' || fault?.kind === 'silent' ? Math.min(fault.after, bytes.length) : bytes.length;
  for (let at = 0; at < until && !response.destroyed; at += PIECE) {
    const piece = bytes.subarray(at, Math.min(at + PIECE, until));
    await new Promise<void>((resolve) => response.write(piece, () => resolve()));
    entry.bytes += piece.length;
    if (fault?.kind === 'slow') await pause(fault.pauseMs);
  }
  if (fault?.kind === 'silent') return;
  if (until < bytes.length) response.destroy();
  else response.end();
}
