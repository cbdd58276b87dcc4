// One client's connection to the in-memory coordinator, which a test can cut and restore.
import { ackSchema, ProtocolError, parseMessage, VOLUNTEER_REQUESTS } from '@weft/protocol';
import { TransportError } from '../errors.ts';
import type { NoticeName, NoticePayload, RequestName, RequestPayload, RequestReply, Transport } from '../ports.ts';

/** The other end of a {@link Wire}. */
export interface Answerer {
  answer(event: string, payload: unknown): Promise<unknown>;
  forgetConnection(): void;
}

/** One client's connection, which can be cut and restored. */
export class Wire implements Transport {
  readonly #coordinator: Answerer;
  readonly #connection = new Set<(state: { connected: boolean; reason: string | null }) => void>();
  readonly #notices = new Map<string, Set<(payload: unknown) => void>>();
  #connected = true;
  #closed = false;
  /** Rejects what is on its way when the line is cut. */
  #cut = new AbortController();

  constructor(coordinator: Answerer) {
    this.#coordinator = coordinator;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  async request<E extends RequestName>(event: E, payload: RequestPayload<E>): Promise<RequestReply<E>> {
    if (this.#closed) throw new TransportError('closed', 'Closed.');
    if (!this.#connected) throw new TransportError('disconnected', 'The connection to the server is down.');
    const { signal } = this.#cut;
    // A hop each way, as on a real line.
    await Promise.resolve();
    const answer = await this.#coordinator.answer(event, payload);
    await Promise.resolve();
    if (signal.aborted)
      throw new TransportError('disconnected', `The connection broke before "${event}" was answered.`);
    const ack = parseMessage(ackSchema(VOLUNTEER_REQUESTS[event].reply), answer, event);
    if (!ack.ok) throw ProtocolError.fromWire(ack.error);
    return ack.value as RequestReply<E>;
  }

  onNotice<E extends NoticeName>(event: E, listener: (payload: NoticePayload<E>) => void): () => void {
    const listeners = this.#notices.get(event) ?? new Set();
    this.#notices.set(event, listeners);
    listeners.add(listener as (payload: unknown) => void);
    return () => listeners.delete(listener as (payload: unknown) => void);
  }

  notify(event: string, payload: unknown): void {
    if (!this.#connected) return;
    for (const listener of this.#notices.get(event) ?? []) listener(payload);
  }

  onConnection(listener: (state: { connected: boolean; reason: string | null }) => void): () => void {
    this.#connection.add(listener);
    if (this.#connected) listener({ connected: true, reason: null });
    return () => this.#connection.delete(listener);
  }

  disconnect(): void {
    this.#connected = false;
    this.#cut.abort();
    this.#coordinator.forgetConnection();
    for (const listener of this.#connection) listener({ connected: false, reason: 'transport close' });
  }

  reconnect(): void {
    this.#connected = true;
    this.#cut = new AbortController();
    for (const listener of this.#connection) listener({ connected: true, reason: null });
  }

  close(): void {
    this.#closed = true;
  }
}
