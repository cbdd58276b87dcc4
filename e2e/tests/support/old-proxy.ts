// A proxy that speaks HTTP and no WebSocket, as some companies' networks have it: upgrades are refused, and counted. It is a real
// hop, so that workers, service and command line meet it as they would in the field.
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

export class OldProxy {
  /** Where clients go instead of to the server. */
  url = '';
  /** Attempts to open a WebSocket. */
  refused = 0;
  /** Long-polling requests let through, and the bytes they carried to the server. */
  readonly polls = { get: 0, post: 0, bytes: 0 };
  readonly #server: Server;
  readonly #target: () => number;

  /** @param target the server's port, asked for at every request */
  constructor(target: () => number) {
    this.#target = target;
    this.#server = createServer((incoming, outgoing) => this.#forward(incoming, outgoing));
    this.#server.on('upgrade', (_request: IncomingMessage, socket: Socket) => {
      this.refused += 1;
      socket.on('error', () => undefined);
      socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
    });
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    const address = this.#server.address();
    this.url = `http://localhost:${typeof address === 'object' ? address?.port : ''}`;
  }

  #forward(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const { method = 'GET', url = '/', headers } = incoming;
    if (url.startsWith('/socket.io/')) {
      if (method === 'POST') this.polls.post += 1;
      else this.polls.get += 1;
      incoming.on('data', (bytes: Buffer) => {
        this.polls.bytes += bytes.length;
      });
    }
    const onward = request(
      { host: '127.0.0.1', port: this.#target(), method, path: url, headers },
      (answer: IncomingMessage) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
        answer.on('error', () => outgoing.destroy());
      },
    );
    onward.on('error', () => {
      if (outgoing.headersSent) outgoing.destroy();
      else outgoing.writeHead(502).end();
    });
    outgoing.on('close', () => onward.destroy());
    incoming.pipe(onward);
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}
