// A volunteer by script, over real sockets: its update is a function of version and name, so that any two servers which take
// the same rounds take the same bytes. It outlives its server: comes back, goes on with its upload, keeps its receipts.
import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { readSafetensors, toFloat32, writeSafetensors } from '@weft/formats';
import {
  ackSchema,
  type Lease,
  NAMESPACES,
  PROTOCOL_VERSION,
  ProtocolError,
  publicKeySchema,
  type Receipt,
  ROUTES,
  VOLUNTEER_NOTICES,
  VOLUNTEER_REQUESTS,
  type VolunteerRequests,
} from '@weft/protocol';
import { io, type Socket } from 'socket.io-client';
import type { z } from 'zod';

/** Small, so that there are moments between them. */
const CHUNK_BYTES = 24 * 1024;
const ANSWER_MS = 3_000;
const AGAIN_MS = 150;

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Every number of a safetensors blob moved by up to `size`, by a generator that starts from `seed`. */
export function moved(bytes: Uint8Array, size: number, seed: string): Uint8Array {
  let state = createHash('sha256').update(seed).digest().readInt32LE(0);
  const draw = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    return state / 2 ** 31;
  };
  const { tensors, metadata } = readSafetensors(bytes);
  return writeSafetensors(
    Array.from(tensors, ([name, tensor]) => ({
      name,
      dtype: 'F32' as const,
      shape: tensor.shape,
      data: toFloat32(tensor).map((value) => value + size * draw()),
    })),
    metadata,
  );
}

export interface VolunteerEvents {
  /** A chunk was acknowledged. */
  chunk: [];
  /** A commit is on its way. */
  commit: [];
  receipt: [Receipt];
}

export class ScriptedVolunteer extends EventEmitter<VolunteerEvents> {
  readonly #url: string;
  readonly #runId: string;
  readonly #name: string;
  readonly #rank: number;
  readonly #pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  readonly #socket: Socket;
  #ended = false;
  /** Errors by code, for the trial's report. */
  readonly errors = new Map<string, number>();
  readonly receipts: Receipt[] = [];

  constructor(url: string, runId: string, name: string, rank: number) {
    super();
    this.#url = url;
    this.#runId = runId;
    this.#name = name;
    this.#rank = rank;
    this.#socket = io(`${url}${NAMESPACES.volunteer}`, {
      transports: ['websocket'],
      forceNew: true,
      reconnectionDelay: 50,
      reconnectionDelayMax: 200,
    });
  }

  /** Takes part until {@link end}. */
  async run(): Promise<void> {
    while (!this.#ended) {
      try {
        await this.#enter();
        while (this.#socket.connected && !this.#ended) await this.#round();
      } catch (error) {
        if (this.#ended) return;
        const code = error instanceof ProtocolError ? error.code : 'line';
        this.errors.set(code, (this.errors.get(code) ?? 0) + 1);
        await pause(AGAIN_MS);
        // Who has lost its greeting with its server starts over on a fresh line.
        if (code === 'out-of-order' || code === 'line') this.#socket.disconnect().connect();
      }
    }
  }

  end(): void {
    this.#ended = true;
    this.#socket.close();
  }

  async #request<E extends keyof VolunteerRequests>(
    event: E,
    payload: z.input<VolunteerRequests[E]['payload']>,
  ): Promise<z.output<VolunteerRequests[E]['reply']>> {
    if (!this.#socket.connected) throw new Error('the line is broken');
    const answer: unknown = await this.#socket.timeout(ANSWER_MS).emitWithAck(event, payload);
    const ack = ackSchema(VOLUNTEER_REQUESTS[event].reply).parse(answer);
    if (!ack.ok) throw ProtocolError.fromWire(ack.error);
    return ack.value as z.output<VolunteerRequests[E]['reply']>;
  }

  async #enter(): Promise<void> {
    while (!this.#socket.connected && !this.#ended) await pause(AGAIN_MS);
    const { challenge } = await this.#request('volunteer:hello', {
      protocolVersion: PROTOCOL_VERSION,
      runId: this.#runId,
      name: this.#name,
      client: { kind: 'load', version: '0' },
      operatorToken: null,
    });
    const key = { key: this.#pair.privateKey, dsaEncoding: 'ieee-p1363' as const };
    const signature = sign('sha256', Buffer.from(`weft:${challenge}`), key).toString('base64url');
    const publicKey = publicKeySchema.parse(this.#pair.publicKey.export({ format: 'jwk' }));
    await this.#request('volunteer:prove', { publicKey, signature });
  }

  async #lease(): Promise<Lease> {
    const granted = new Promise<unknown>((resolve) => this.#socket.once('lease:granted', resolve));
    const reply = await this.#request('round:join', {
      device: {
        adapter: { vendor: 'none', architecture: '', device: '', description: 'a script', software: true },
        limits: { maxBufferSize: 1, maxStorageBufferBindingSize: 1 },
        features: [],
        deviceMemoryGiB: null,
      },
      proposal: {
        rank: this.#rank,
        verdicts: [{ rank: this.#rank, fits: true, memoryBytes: 1, uploadBytes: 1, reason: 'a script' }],
        ownLimits: { maxMemoryBytes: null, maxRank: null, maxUploadBytes: null },
        stepSeconds: null,
      },
      data: { kind: 'task', task: null },
    });
    if (reply.status === 'leased') return reply.lease;
    const notice = await Promise.race([granted, pause(ANSWER_MS, null)]);
    if (notice === null) throw new Error('no lease yet');
    return VOLUNTEER_NOTICES['lease:granted'].parse(notice);
  }

  async #round(): Promise<void> {
    const lease = await this.#lease();
    const reply = await fetch(`${this.#url}${ROUTES.blob(lease.start.sha256)}`, {
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    const start = new Uint8Array(await reply.arrayBuffer());
    if (sha256(start) !== lease.start.sha256) throw new Error('the start weights are not what the lease says');
    const bytes = moved(start, 0.01, `${lease.startVersion}/${this.#name}`);
    const receipt = await this.#send(lease, bytes);
    const known = this.receipts.find(({ receiptId }) => receiptId === receipt.receiptId);
    if (known) return;
    this.receipts.push(receipt);
    this.emit('receipt', receipt);
  }

  async #send(lease: Lease, bytes: Uint8Array): Promise<Receipt> {
    const { leaseId } = lease;
    const hash = sha256(bytes);
    let { offset } = await this.#request('upload:begin', {
      leaseId,
      runHash: lease.runHash,
      startHash: lease.start.sha256,
      dtype: 'F32',
      rank: lease.grant.rank,
      bytes: bytes.length,
      sha256: hash,
      targetTokens: 100 + this.#rank,
      examples: lease.training.steps,
      steps: lease.training.steps,
      firstLoss: 5,
      lastLoss: 4,
      tokensPerSecond: 1_000,
    });
    while (offset < bytes.length) {
      const chunk = bytes.slice(offset, offset + CHUNK_BYTES);
      ({ offset } = await this.#request('upload:chunk', { leaseId, offset, bytes: chunk }));
      this.emit('chunk');
    }
    this.emit('commit');
    return this.#request('upload:commit', { leaseId, sha256: hash });
  }
}
