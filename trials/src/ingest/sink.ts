// The yardstick of the ingest trial: a bare Socket.IO server that answers the same uploads by the same messages and keeps
// nothing, or with `flush` one flushed file an upload. It checks nothing; that is the point. A process of its own.
import { closeSync, fsyncSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { MAX_MESSAGE_BYTES, NAMESPACES } from '@weft/protocol';
import { Server } from 'socket.io';

/** Where uploads are flushed to; nowhere when not given. */
const [folder] = process.argv.slice(2);
if (folder) mkdirSync(folder, { recursive: true });

const http = createServer();
const io = new Server(http, { serveClient: false, maxHttpBufferSize: MAX_MESSAGE_BYTES });

type Reply = (ack: unknown) => void;
const answer = (reply: Reply, value: unknown) => reply({ ok: true, value });

io.of(NAMESPACES.volunteer).on('connection', (socket) => {
  let chunks: Uint8Array[] = [];
  let size = 0;
  socket.on('upload:begin', (_begin: unknown, reply: Reply) => {
    chunks = [];
    size = 0;
    answer(reply, { offset: 0 });
  });
  socket.on('upload:chunk', ({ offset, bytes }: { offset: number; bytes: Uint8Array }, reply: Reply) => {
    chunks.push(bytes);
    size = offset + bytes.length;
    answer(reply, { offset: size });
  });
  socket.on('upload:commit', ({ leaseId, sha256 }: { leaseId: string; sha256: string }, reply: Reply) => {
    if (folder) {
      const file = openSync(join(folder, sha256), 'w');
      for (const chunk of chunks) writeSync(file, chunk);
      fsyncSync(file);
      closeSync(file);
    }
    const ids = { receiptId: leaseId, runId: 'sink', round: 1, clientId: 'sink', leaseId };
    const signed = { keyId: '0'.repeat(64), signature: 'none' };
    answer(reply, { ...ids, ...signed, sha256, bytes: size, targetTokens: 1, acceptedAt: new Date().toISOString() });
    chunks = [];
  });
});

http.listen(0, '127.0.0.1', () => process.send?.(`http://127.0.0.1:${(http.address() as AddressInfo).port}`));
process.on('disconnect', () => process.exit(0));
