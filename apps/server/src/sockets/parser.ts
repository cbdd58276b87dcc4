// Socket.IO's own parser with tighter bounds. What it lets through is spread over the call stack as arguments, and a hundred
// thousand of them in one message overflow it where nobody can catch that; and it would gather binary parts nobody asked for.
// A frame beyond the bounds closes its line, as any frame that cannot be parsed does.
import { Decoder, Encoder, type Packet } from 'socket.io-parser';

/** A request is a name and one payload; the rest is room for clients that add something. */
const MOST_ARGUMENTS = 16;
/** One chunk of an upload. */
const MOST_ATTACHMENTS = 1;

class BoundedDecoder extends Decoder {
  /** Decoder calls its own emitter, past any override; so one decodes and this one passes on what may pass. */
  readonly #inner = new Decoder({ maxAttachments: MOST_ATTACHMENTS });

  constructor() {
    super();
    this.#inner.on('decoded', (packet: Packet) => {
      if (Array.isArray(packet.data) && packet.data.length > MOST_ARGUMENTS) throw new RangeError('too many arguments');
      this.emitReserved('decoded', packet);
    });
  }

  override add(part: unknown): void {
    this.#inner.add(part);
  }

  override destroy(): void {
    this.#inner.destroy();
  }
}

/** For the `parser` option of a Socket.IO server. */
export const BOUNDED_PARSER = { Encoder, Decoder: BoundedDecoder };
