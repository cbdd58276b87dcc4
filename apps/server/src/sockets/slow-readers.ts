// Connections whose other side does not read: what waits to be sent is counted, and past a limit the connection is closed.
// Their requests are answered into memory otherwise, for as long as they keep asking.
import type { Socket } from 'socket.io';

type Connection = Socket['conn'];
type Packet = Parameters<Parameters<Connection['on']>[1]>[0];

/** Bytes one volunteer may leave unread: thousands of notices. */
export const UNREAD_BYTES = 1024 * 1024;
/** The same for an operator, whose snapshots hold the spectra of every round. */
export const UNREAD_OPERATOR_BYTES = 64 * 1024 * 1024;

/** Envelope of a packet, roughly; an empty one costs as much. */
const PACKET_BYTES = 64;

const sizeOf = (packet: Packet): number => {
  const data: unknown = packet?.data;
  if (typeof data === 'string') return PACKET_BYTES + data.length;
  return PACKET_BYTES + (data instanceof Uint8Array ? data.byteLength : 0);
};

export class SlowReaders {
  readonly #limits = new WeakMap<Connection, number>();
  readonly #onClosed: (unreadBytes: number) => void;
  /** Connections closed for it, since the start. */
  closed = 0;

  /** `onClosed` is told how much was unread. */
  constructor(onClosed: (unreadBytes: number) => void) {
    this.#onClosed = onClosed;
  }

  watch(connection: Connection): void {
    let unread = 0;
    let isClosed = false;
    // Only what the transport did not take yet waits here: as long as the other side reads, that is next to nothing.
    connection.on('flush', () => {
      unread = 0;
    });
    connection.on('packetCreate', (packet) => {
      unread += sizeOf(packet);
      if (isClosed || unread <= (this.#limits.get(connection) ?? UNREAD_BYTES)) return;
      isClosed = true;
      this.closed += 1;
      this.#onClosed(unread);
      // Discarded: what it did not read so far it will not read now.
      connection.close(true);
    });
  }

  /** Lets a connection leave more unread. */
  allow(connection: Connection, bytes: number): void {
    this.#limits.set(connection, bytes);
  }
}
