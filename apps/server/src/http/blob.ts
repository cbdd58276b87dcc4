// Content-addressed files over HTTP: one range at a time, the hash as ETag, cacheable for ever.
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { ProtocolError } from '@weft/protocol';
import type { FastifyReply, FastifyRequest } from 'fastify';

/** Bytes [begin, end) a Range header asks for; null for the whole; 'unsatisfiable' when it starts beyond the end. */
export function parseRange(
  header: string | undefined,
  size: number,
): { begin: number; end: number } | null | 'unsatisfiable' {
  const [, from, to] = /^bytes=(\d*)-(\d*)$/.exec(header ?? '') ?? [];
  if (from === undefined || to === undefined || (from === '' && to === '')) return null;
  if (from === '') {
    const length = Math.min(Number(to), size);
    return length === 0 ? 'unsatisfiable' : { begin: size - length, end: size };
  }
  const begin = Number(from);
  const end = to === '' ? size : Math.min(Number(to) + 1, size);
  return begin >= size || end <= begin ? 'unsatisfiable' : { begin, end };
}

/** Answers with the file at `path`, whose content has this hash. */
export async function sendBlob(
  request: FastifyRequest,
  reply: FastifyReply,
  path: string,
  sha256: string,
): Promise<FastifyReply> {
  const size = await stat(path).then(
    (found) => found.size,
    (cause: unknown) => {
      throw new ProtocolError('not-found', `The server no longer has file ${sha256.slice(0, 12)}….`, { cause });
    },
  );
  const etag = `"${sha256}"`;
  void reply
    .header('etag', etag)
    .header('accept-ranges', 'bytes')
    .header('cache-control', 'public, max-age=31536000, immutable')
    .type('application/octet-stream');
  if (request.headers['if-none-match']?.includes(etag)) return reply.code(304).send();
  const condition = request.headers['if-range'];
  const range = condition === undefined || condition === etag ? parseRange(request.headers.range, size) : null;
  if (range === 'unsatisfiable') {
    const error = new ProtocolError('bad-message', `The file has ${size} bytes; the range asked for is not in it.`);
    void reply.code(416).header('content-range', `bytes */${size}`).header('cache-control', 'no-store');
    return reply.type('application/json; charset=utf-8').send({ error: error.toWire() });
  }
  const { begin, end } = range ?? { begin: 0, end: size };
  if (range) void reply.code(206).header('content-range', `bytes ${begin}-${end - 1}/${size}`);
  void reply.header('content-length', end - begin);
  if (request.method === 'HEAD' || end === begin) return reply.send();
  return reply.send(createReadStream(path, { start: begin, end: end - 1 }));
}
