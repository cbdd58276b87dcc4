// A narrow uplink between a browser and the server, so that an upload takes long enough to be interrupted: bytes from the client
// pass at a set speed, those to it as they come.
import { connect, createServer, type Server, type Socket } from 'node:net';
import { Transform } from 'node:stream';

export class SlowRelay {
  /** Where the browser goes instead of to the server. */
  url = '';
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  /**
   * @param target the server's port, asked for at every connection
   * @param bytesPerSecond of one connection, from client to server
   */
  constructor(target: () => number, bytesPerSecond: number) {
    this.#server = createServer((client) => {
      const server = connect(target(), '127.0.0.1');
      for (const socket of [client, server]) {
        this.#sockets.add(socket);
        socket.on('close', () => this.#sockets.delete(socket));
        // The server is killed in the test: a broken connection ends both halves, as it would without us between.
        socket.on('error', () => {
          client.destroy();
          server.destroy();
        });
      }
      const throttle = new Transform({
        transform(bytes: Buffer, _encoding, done) {
          setTimeout(() => done(null, bytes), (1000 * bytes.length) / bytesPerSecond);
        },
      });
      client.pipe(throttle).pipe(server);
      server.pipe(client);
    });
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    const address = this.#server.address();
    this.url = `http://localhost:${typeof address === 'object' ? address?.port : ''}`;
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}
