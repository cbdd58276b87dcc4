// The line to the server with its handshake: after every (re)connection the volunteer says hello again and proves its key,
// and requests wait until that is done. Knows leases and rounds only as payloads.
import { type Hello, PROTOCOL_VERSION, ProtocolError, type RoundView, type RunView } from '@weft/protocol';
import { abortable, backoffMs, Condition, sleep } from './clock.ts';
import { messageOf, SessionError, TransportError } from './errors.ts';
import type { Clock, Identities, Identity, RequestName, RequestPayload, RequestReply, Transport } from './ports.ts';

export interface LineOptions {
  readonly transport: Transport;
  readonly identities: Identities;
  readonly clock: Clock;
  readonly random: () => number;
  readonly hello: Pick<Hello, 'runId' | 'name' | 'client' | 'operatorToken' | 'invite'>;
}

export interface Admission {
  readonly clientId: string;
  readonly run: RunView;
  readonly round: RoundView;
}

export interface LineListener {
  /** After every handshake. */
  admitted(admission: Admission): void;
  /** The line broke, or the handshake did not succeed yet; trying goes on. */
  interrupted(error: Error): void;
  /** The handshake was refused for good, whether or not somebody waits for it. */
  refused(error: Error): void;
}

/** Attempts at one request that is answered "later", before its error is passed on. */
const MOST_ATTEMPTS = 8;

/** Whether repeating the same request can help. */
export function isPassing(error: unknown): error is TransportError | ProtocolError {
  if (error instanceof TransportError) return error.code !== 'closed';
  return error instanceof ProtocolError && error.retryAfterMs !== undefined;
}

export class Line {
  readonly #options: LineOptions;
  readonly #listener: LineListener;
  readonly #condition = new Condition();
  readonly #closing = new AbortController();
  readonly #unsubscribe: () => void;
  #admission: Admission | null = null;
  #refusal: Error | null = null;
  /** Known after the first handshake: later ones must not land in another run. */
  #runId: string | null;
  #runHash: string | null = null;
  /** Counts connections, so that a handshake of a broken one ends itself. */
  #connection = 0;
  /** Counts handshakes. */
  #handshakes = 0;

  constructor(options: LineOptions, listener: LineListener) {
    this.#options = options;
    this.#listener = listener;
    this.#runId = options.hello.runId;
    this.#unsubscribe = options.transport.onConnection(({ connected, reason }) => {
      this.#connection += 1;
      this.#admission = null;
      if (connected) {
        void this.#shakeHands(this.#connection);
        return;
      }
      const why = reason ? ` (${reason})` : '';
      listener.interrupted(new TransportError('disconnected', `The connection to the server is down${why}.`));
      this.#condition.poke();
    });
  }

  /** Grows with every handshake: what the server forgot with the old connection must be said again. */
  get handshakes(): number {
    return this.#handshakes;
  }

  /** Whether the server refused the handshake for good. */
  get isRefused(): boolean {
    return this.#refusal !== null;
  }

  get isAdmitted(): boolean {
    return this.#admission !== null;
  }

  /** Never rejects: failures reach those who wait, as refusal, or the listener. */
  async #shakeHands(connection: number): Promise<void> {
    const { transport, clock, random, hello } = this.#options;
    const stale = () => connection !== this.#connection || this.#closing.signal.aborted;
    for (let attempt = 0; !stale(); attempt++) {
      try {
        const greeting = await transport.request('volunteer:hello', {
          ...hello,
          protocolVersion: PROTOCOL_VERSION,
          runId: this.#runId,
        });
        const identity = await this.#identityFor(greeting.run);
        const signature = await this.#sign(identity, `weft:${greeting.challenge}`);
        const proof = { publicKey: identity.publicKey, signature };
        const { clientId, round } = await transport.request('volunteer:prove', proof);
        if (!stale()) this.#admit({ clientId, round, run: greeting.run });
        return;
      } catch (error) {
        if (stale()) return;
        if (!isPassing(error)) {
          this.#refusal = error instanceof Error ? error : new Error(messageOf(error));
          this.#listener.refused(this.#refusal);
          this.#condition.poke();
          return;
        }
        this.#listener.interrupted(error);
        const asked = error instanceof ProtocolError ? (error.retryAfterMs ?? 0) : 0;
        await sleep(clock, Math.max(asked, backoffMs(attempt, random)), this.#closing.signal).catch(() => {
          // Closing ends the sleep; the loop's condition sees it.
        });
      }
    }
  }

  async #identityFor(run: RunView): Promise<Identity> {
    try {
      return await this.#options.identities.of(run);
    } catch (cause) {
      throw new SessionError('identity', 'The key of this device for this run could not be opened or made.', { cause });
    }
  }

  async #sign(identity: Identity, text: string): Promise<string> {
    try {
      return await identity.sign(text);
    } catch (cause) {
      throw new SessionError('identity', 'This device’s key could not sign. Remove the stored key and start again.', {
        cause,
      });
    }
  }

  #admit(admission: Admission): void {
    const { run } = admission;
    if (this.#runHash !== null && this.#runHash !== run.runHash) {
      this.#refusal = new SessionError(
        'run-changed',
        `The server now serves run ${run.runId} with another model or other tasks. Start again to take part in it.`,
      );
    } else {
      this.#runId = run.runId;
      this.#runHash = run.runHash;
      this.#admission = admission;
      this.#handshakes += 1;
      this.#listener.admitted(admission);
    }
    this.#condition.poke();
  }

  /** Resolves once the handshake is done; rejects with the server's refusal, or the signal's reason. */
  async admitted(signal: AbortSignal): Promise<Admission> {
    await this.#condition.until(() => this.#admission !== null || this.#refusal !== null, signal);
    if (this.#refusal) throw this.#refusal;
    if (!this.#admission) throw new TransportError('disconnected', 'The connection to the server is down.');
    return this.#admission;
  }

  /** One attempt, after the handshake. Rejects with what the transport says. */
  async once<E extends RequestName>(
    event: E,
    payload: RequestPayload<E>,
    signal: AbortSignal,
  ): Promise<RequestReply<E>> {
    await this.admitted(signal);
    return abortable(this.#options.transport.request(event, payload), signal);
  }

  /** As {@link once}, repeated over broken connections and after "try again later". Only for requests that may repeat. */
  async request<E extends RequestName>(
    event: E,
    payload: RequestPayload<E>,
    signal: AbortSignal,
  ): Promise<RequestReply<E>> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.once(event, payload, signal);
      } catch (error) {
        await this.rest(error, attempt, signal);
      }
    }
  }

  /** Waits as long as `error` asks for before attempt `attempt + 1`; throws it when repeating cannot help. */
  async rest(error: unknown, attempt: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { clock, random } = this.#options;
    if (!isPassing(error)) throw error;
    // A broken line may stay broken for hours, a storm outlast eight answers; what else is answered eight times is so.
    const endless = error.code === 'disconnected' || error.code === 'overloaded';
    if (!endless && attempt + 1 >= MOST_ATTEMPTS) throw error;
    const asked = error instanceof ProtocolError ? error.retryAfterMs : undefined;
    const jitter = asked === undefined ? 0 : Math.round(asked * 0.25 * random());
    await sleep(clock, asked === undefined ? backoffMs(Math.min(attempt, 5), random) : asked + jitter, signal);
  }

  close(): void {
    this.#unsubscribe();
    this.#refusal ??= new TransportError('closed', 'The session was closed.');
    this.#closing.abort(this.#refusal);
    this.#condition.poke();
  }
}
