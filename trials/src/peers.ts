// A peer as a plain socket that speaks the protocol and nothing more: a volunteer that can be told to send anything. Not the
// session that tabs run (packages/volunteer), which could not misbehave. The operator is admin.ts.
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import {
  type Ack,
  ackSchema,
  CHUNK_BYTES,
  type JoinReply,
  type Lease,
  MAX_CHUNKS_IN_FLIGHT,
  NAMESPACES,
  PROTOCOL_VERSION,
  ProtocolError,
  type PublicKey,
  publicKeySchema,
  type Receipt,
  ROUTES,
  type UploadBegin,
  VOLUNTEER_NOTICES,
  VOLUNTEER_REQUESTS,
  type VolunteerRequests,
} from '@weft/protocol';
import { io, type ManagerOptions, type Socket, type SocketOptions } from 'socket.io-client';
import type { z } from 'zod';

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

const ACK_MS = 60_000;

export class Peer {
  readonly socket: Socket;

  constructor(address: string, options: Partial<ManagerOptions & SocketOptions> = {}) {
    this.socket = io(address, { transports: ['websocket'], forceNew: true, ...options });
  }

  /** Sends anything; the raw acknowledgement. */
  async raw(event: string, ...payload: unknown[]): Promise<Ack<unknown>> {
    return (await this.socket.timeout(ACK_MS).emitWithAck(event, ...payload)) as Ack<unknown>;
  }

  close(): void {
    this.socket.close();
  }
}

export class Volunteer extends Peer {
  readonly #url: string;
  readonly #privateKey: KeyObject;
  readonly publicKey: PublicKey;
  clientId = '';
  readonly #granted: Lease[] = [];
  #onGrant: ((lease: Lease) => void) | null = null;

  constructor(url: string) {
    super(`${url}${NAMESPACES.volunteer}`);
    const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    this.#url = url;
    this.#privateKey = pair.privateKey;
    this.publicKey = publicKeySchema.parse(pair.publicKey.export({ format: 'jwk' }));
    this.socket.on('lease:granted', (data: unknown) => {
      const lease = VOLUNTEER_NOTICES['lease:granted'].parse(data);
      if (this.#onGrant) this.#onGrant(lease);
      else this.#granted.push(lease);
      this.#onGrant = null;
    });
  }

  async request<E extends keyof VolunteerRequests>(
    event: E,
    payload: z.input<VolunteerRequests[E]['payload']>,
  ): Promise<z.output<VolunteerRequests[E]['reply']>> {
    const ack = ackSchema(VOLUNTEER_REQUESTS[event].reply).parse(await this.raw(event, payload));
    if (!ack.ok) throw ProtocolError.fromWire(ack.error);
    return ack.value as z.output<VolunteerRequests[E]['reply']>;
  }

  hello(runId: string) {
    return {
      protocolVersion: PROTOCOL_VERSION,
      runId,
      name: null,
      client: { kind: 'load' as const, version: '0' },
      operatorToken: null,
    };
  }

  sign(challenge: string): string {
    const key = { key: this.#privateKey, dsaEncoding: 'ieee-p1363' as const };
    return sign('sha256', Buffer.from(`weft:${challenge}`), key).toString('base64url');
  }

  /** The answer to a challenge, by this key. */
  proof(challenge: string) {
    return { publicKey: this.publicKey, signature: this.sign(challenge) };
  }

  async enter(runId: string): Promise<this> {
    const { challenge } = await this.request('volunteer:hello', this.hello(runId));
    const { clientId } = await this.request('volunteer:prove', this.proof(challenge));
    this.clientId = clientId;
    return this;
  }

  joinPayload(rank: number): z.input<VolunteerRequests['round:join']['payload']> {
    return {
      device: {
        adapter: { vendor: 'trial', architecture: '', device: '', description: 'no adapter', software: true },
        limits: { maxBufferSize: 1, maxStorageBufferBindingSize: 1 },
        features: [],
        deviceMemoryGiB: null,
      },
      proposal: {
        rank,
        verdicts: [{ rank, fits: true, memoryBytes: 1, uploadBytes: 1, reason: 'a trial' }],
        ownLimits: { maxMemoryBytes: null, maxRank: null, maxUploadBytes: null },
        stepSeconds: null,
      },
      data: { kind: 'task', task: null },
    };
  }

  join(rank: number): Promise<JoinReply> {
    return this.request('round:join', this.joinPayload(rank));
  }

  /** Joins and waits for the lease, now or by notice. */
  async lease(rank: number): Promise<Lease> {
    const reply = await this.join(rank);
    if (reply.status === 'leased') return reply.lease;
    const [lease] = this.#granted.splice(0, 1);
    return lease ?? new Promise((resolve) => (this.#onGrant = resolve));
  }

  async heartbeat(lease: Lease): Promise<void> {
    const progress = {
      stage: 'training' as const,
      step: 0,
      steps: 1,
      loss: null,
      targetTokens: 0,
      tokensPerSecond: null,
    };
    await this.request('lease:heartbeat', { leaseId: lease.leaseId, hidden: false, paused: false, progress });
  }

  async start(lease: Lease): Promise<Uint8Array> {
    const reply = await fetch(`${this.#url}${ROUTES.blob(lease.start.sha256)}`);
    return new Uint8Array(await reply.arrayBuffer());
  }

  /** Sends an upload whole, from wherever it stands, two chunks at a time. Resolves with its receipt. */
  upload(lease: Lease, bytes: Uint8Array, claims: Partial<UploadBegin> = {}): Promise<Receipt> {
    return sendUpload(this, announcement(lease, bytes, claims), bytes);
  }
}

export function announcement(lease: Lease, bytes: Uint8Array, claims: Partial<UploadBegin> = {}): UploadBegin {
  const { steps, batchSize } = lease.training;
  return {
    leaseId: lease.leaseId,
    runHash: lease.runHash,
    startHash: lease.start.sha256,
    dtype: 'F32',
    rank: lease.grant.rank,
    bytes: bytes.length,
    sha256: claims.sha256 ?? sha256(bytes),
    targetTokens: 100,
    examples: steps * batchSize,
    steps,
    firstLoss: 5,
    lastLoss: 4,
    tokensPerSecond: 1000,
    ...claims,
  };
}

/** Begin, chunks, commit. Throws the ProtocolError of the first that is refused. */
export async function sendUpload(peer: Peer, begin: UploadBegin, bytes: Uint8Array): Promise<Receipt> {
  const { leaseId, sha256: hash } = begin;
  const ask = async <E extends keyof VolunteerRequests>(event: E, payload: unknown) => {
    const ack = await peer.raw(event, payload);
    if (!ack.ok) throw ProtocolError.fromWire(ack.error);
    return VOLUNTEER_REQUESTS[event].reply.parse(ack.value) as z.output<VolunteerRequests[E]['reply']>;
  };
  let next = (await ask('upload:begin', begin)).offset;
  const inFlight: Promise<unknown>[] = [];
  while (next < bytes.length || inFlight.length > 0) {
    while (next < bytes.length && inFlight.length < MAX_CHUNKS_IN_FLIGHT) {
      const end = Math.min(next + CHUNK_BYTES, bytes.length);
      const answer = ask('upload:chunk', { leaseId, offset: next, bytes: bytes.subarray(next, end) });
      // When the chunk before it fails, nobody awaits this one; its failure has the same cause.
      answer.catch(() => undefined);
      inFlight.push(answer);
      next = end;
    }
    await inFlight.shift();
  }
  return ask('upload:commit', { leaseId, sha256: hash });
}
