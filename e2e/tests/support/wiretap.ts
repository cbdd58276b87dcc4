// Everything a browser sends to the server, in plain bytes: a proxy on this machine that keeps what passes from client to
// server, with the masks of WebSocket frames taken off. The browser's own view of a worker's traffic would not be proof.
import { connect, createServer, type Server, type Socket } from 'node:net';

const HEADER_END = Buffer.from('\r\n\r\n');

/** Takes WebSocket frames apart as they come (RFC 6455, section 5.2); client frames are masked. */
class FrameReader {
  #rest: Buffer = Buffer.alloc(0);
  readonly payloads: Buffer[] = [];

  push(bytes: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    for (let frame = this.#next(); frame; frame = this.#next()) this.payloads.push(frame);
  }

  #next(): Buffer | null {
    const data = this.#rest;
    if (data.length < 2) return null;
    if (((data[0] ?? 0) & 0x40) !== 0)
      throw new Error('A compressed frame cannot be read; switch perMessageDeflate off.');
    const masked = ((data[1] ?? 0) & 0x80) !== 0;
    let length = (data[1] ?? 0) & 0x7f;
    let at = 2;
    if (length === 126) {
      if (data.length < 4) return null;
      length = data.readUInt16BE(2);
      at = 4;
    } else if (length === 127) {
      if (data.length < 10) return null;
      length = Number(data.readBigUInt64BE(2));
      at = 10;
    }
    const mask = masked ? data.subarray(at, at + 4) : Buffer.alloc(4);
    if (masked) at += 4;
    if (data.length < at + length) return null;
    const payload = Buffer.from(data.subarray(at, at + length));
    for (let i = 0; i < payload.length; i += 1) payload[i] = (payload[i] ?? 0) ^ (mask[i % 4] ?? 0);
    this.#rest = data.subarray(at + length);
    return payload;
  }
}

export class Wiretap {
  /** Where the browser goes instead of to the server. */
  url = '';
  readonly #target: () => number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #requests: Buffer[] = [];
  readonly #frames: FrameReader[] = [];

  /** @param target the server's port, asked for at every connection */
  constructor(target: () => number) {
    this.#target = target;
    this.#server = createServer((client) => this.#relay(client));
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    const address = this.#server.address();
    this.url = `http://localhost:${typeof address === 'object' ? address?.port : ''}`;
  }

  #relay(client: Socket): void {
    const server = connect(this.#target(), '127.0.0.1');
    for (const socket of [client, server]) {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      // The server is killed in the test: a broken connection ends both halves, as it would without us between.
      socket.on('error', () => {
        client.destroy();
        server.destroy();
      });
    }
    let head = Buffer.alloc(0);
    let frames: FrameReader | null = null;
    client.on('data', (bytes: Buffer) => {
      if (frames) {
        frames.push(bytes);
        return;
      }
      this.#requests.push(bytes);
      head = Buffer.concat([head, bytes]);
      const end = head.indexOf(HEADER_END);
      if (end >= 0 && /upgrade: websocket/i.test(head.subarray(0, end).toString('latin1'))) {
        frames = new FrameReader();
        this.#frames.push(frames);
        frames.push(head.subarray(end + HEADER_END.length));
      } else if (end >= 0) {
        // The next request on this connection may be the upgrade.
        head = head.subarray(head.lastIndexOf(HEADER_END) + HEADER_END.length);
      }
    });
    client.pipe(server);
    server.pipe(client);
  }

  /** Bytes of all requests, and of all WebSocket messages. */
  sent(): { requests: Buffer; messages: Buffer } {
    return {
      requests: Buffer.concat(this.#requests),
      messages: Buffer.concat(this.#frames.flatMap(({ payloads }) => payloads)),
    };
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}
