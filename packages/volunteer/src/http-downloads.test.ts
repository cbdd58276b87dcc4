// The HTTP adapter against a real HTTP server.
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { httpDownloads } from './http-downloads.ts';

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const bytes = Uint8Array.from({ length: 100 }, (_, i) => i);
const { signal } = new AbortController();

describe('httpDownloads', () => {
  it('asks for a range and takes what 206 brings', async () => {
    let asked: string | undefined;
    let path: string | undefined;
    const origin = await serve((request, response) => {
      asked = request.headers.range;
      path = request.url;
      response.writeHead(206, { 'content-range': 'bytes 10-19/100' }).end(bytes.subarray(10, 20));
    });
    const got = await httpDownloads(`${origin}/`).range('ab', 10, 20, signal);
    expect([...got]).toEqual([...bytes.subarray(10, 20)]);
    expect(asked).toBe('bytes=10-19');
    expect(path).toBe('/api/blobs/ab');
  });

  it('cuts its range out of a whole file', async () => {
    const origin = await serve((_request, response) => response.writeHead(200).end(bytes));
    expect([...(await httpDownloads(origin).range('ab', 90, 100, signal))]).toEqual([...bytes.subarray(90)]);
  });

  it('does not take a shorter answer for the range', async () => {
    const origin = await serve((_request, response) => response.writeHead(206).end(bytes.subarray(0, 5)));
    await expect(httpDownloads(origin).range('ab', 0, 10, signal)).rejects.toMatchObject({ code: 'network' });
  });

  it('passes the server’s error on, with its time', async () => {
    const error = { code: 'rate-limited', message: 'Slow down.', retryAfterMs: 700 };
    const origin = await serve((_request, response) => response.writeHead(429).end(JSON.stringify({ error })));
    await expect(httpDownloads(origin).json('/api/runs')).rejects.toMatchObject({
      code: 'rate-limited',
      retryAfterMs: 700,
    });
  });

  it('tells a missing file of another server from a failing one', async () => {
    const origin = await serve((request, response) => {
      response.writeHead(request.url === '/gone' ? 404 : 502).end('<html>');
    });
    await expect(httpDownloads(origin).json('/gone')).rejects.toMatchObject({ code: 'not-found' });
    await expect(httpDownloads(origin).json('/bad')).rejects.toMatchObject({ name: 'TransportError', code: 'network' });
  });

  it('names a broken line, JSON that broke off, and an abort', async () => {
    const origin = await serve((request, response) => {
      if (request.url === '/half') response.writeHead(200).end('{"a":');
      else request.socket.destroy();
    });
    await expect(httpDownloads(origin).json('/half')).rejects.toMatchObject({ code: 'network' });
    await expect(httpDownloads(origin).range('ab', 0, 10, signal)).rejects.toMatchObject({ code: 'network' });
    const abort = new AbortController();
    abort.abort(new Error('enough'));
    await expect(httpDownloads(origin).range('ab', 0, 10, abort.signal)).rejects.toThrow('enough');
  });
});
