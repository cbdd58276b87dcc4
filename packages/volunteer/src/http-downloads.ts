// The server's files over `fetch`, the same in a tab and in Node. Retries are the session's affair, not made here.
import { ProtocolError, ROUTES, wireErrorSchema } from '@weft/protocol';
import { TransportError } from './errors.ts';
import type { Downloads } from './ports.ts';

/** Downloads from the server at `origin`, such as `http://localhost:7070`; '' for the page's own. */
export function httpDownloads(origin: string, fetcher: typeof fetch = (...args) => fetch(...args)): Downloads {
  const base = origin.replace(/\/+$/, '');

  async function get(path: string, init: RequestInit): Promise<Response> {
    try {
      return await fetcher(`${base}${path}`, init);
    } catch (cause) {
      init.signal?.throwIfAborted();
      throw new TransportError('network', `The server did not answer GET ${path}.`, { cause });
    }
  }

  async function refusal(response: Response, path: string): Promise<Error> {
    const text = await response.text().catch(() => '');
    let body: unknown = null;
    try {
      body = JSON.parse(text);
    } catch {
      // Not ours: a proxy's page, or nothing. The status alone has to do.
    }
    const wire = wireErrorSchema.safeParse(
      body !== null && typeof body === 'object' && 'error' in body ? body.error : null,
    );
    if (wire.success) return ProtocolError.fromWire(wire.data);
    const message = `GET ${path} was answered with HTTP ${response.status}.`;
    if (response.status === 404) return new ProtocolError('not-found', message);
    return new TransportError('network', message);
  }

  return {
    async json(path) {
      const response = await get(path, { headers: { accept: 'application/json' } });
      if (!response.ok) throw await refusal(response, path);
      try {
        return (await response.json()) as unknown;
      } catch (cause) {
        throw new TransportError('network', `The answer to GET ${path} broke off or is not JSON.`, { cause });
      }
    },
    async range(sha256, begin, end, signal) {
      const path = ROUTES.blob(sha256);
      const response = await get(path, { headers: { range: `bytes=${begin}-${end - 1}` }, signal });
      if (!response.ok) throw await refusal(response, path);
      let bytes: Uint8Array;
      try {
        bytes = new Uint8Array(await response.arrayBuffer());
      } catch (cause) {
        signal.throwIfAborted();
        throw new TransportError('network', `GET ${path} broke off.`, { cause });
      }
      // Plain 200 means the whole file: allowed by HTTP where a proxy drops the Range header.
      if (response.status === 200) bytes = bytes.subarray(begin, end);
      if (bytes.length === end - begin) return bytes;
      throw new TransportError('network', `GET ${path} gave ${bytes.length} bytes instead of ${end - begin}.`);
    },
  };
}
