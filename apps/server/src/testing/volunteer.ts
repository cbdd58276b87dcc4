// A volunteer for tests: speaks the protocol over a real socket and "trains" by moving its start factors at random. What it
// trained from and what it sent are kept, so that a test can compute by itself what the server must make of them.
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import {
  alphaOf,
  type LoraFactors,
  parsePeftTensorName,
  parseSparseTensorName,
  rankOf,
  readSafetensors,
  type SparseUpdate,
  scaleOf,
  toFloat32,
  writeFactors,
  writeSparse,
} from '@weft/formats';
import {
  type Ack,
  ackSchema,
  CHUNK_BYTES,
  type DataChoice,
  type JoinReply,
  type Lease,
  NAMESPACES,
  PROTOCOL_VERSION,
  ProtocolError,
  type PublicKey,
  publicKeySchema,
  ROUTES,
  type UploadBegin,
  VOLUNTEER_NOTICES,
  VOLUNTEER_REQUESTS,
  type VolunteerRequests,
} from '@weft/protocol';
import { io, type Socket } from 'socket.io-client';
import type { z } from 'zod';

export type Factors = ReadonlyMap<string, LoraFactors>;

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Factors of a blob at a grant. */
export const readFactors = (bytes: Uint8Array, grant: Lease['grant']): Factors =>
  readPairs(bytes, (module) => ({ rank: rankOf(grant, module), alpha: alphaOf(grant, module) }));

/** Factors of any rank, at scale 1. */
const readSide = (bytes: Uint8Array): Factors => readPairs(bytes, (_module, rank) => ({ rank, alpha: rank }));

function readPairs(
  bytes: Uint8Array,
  grantOf: (module: string, rank: number) => { rank: number; alpha: number },
): Factors {
  const { tensors } = readSafetensors(bytes);
  const factors = new Map<string, LoraFactors>();
  for (const [name, tensor] of tensors) {
    const parsed = parsePeftTensorName(name);
    if (parsed?.factor !== 'A') continue;
    const { module } = parsed;
    const other = tensors.get(name.replace('lora_A', 'lora_B'));
    if (!other) throw new Error(`${module} has no B`);
    const [stored = 0, columns = 0] = tensor.shape;
    const { rank, alpha } = grantOf(module, stored);
    const [out = 0] = other.shape;
    factors.set(module, {
      module,
      in: columns,
      out,
      rank,
      alpha,
      scale: scaleOf(alpha, rank),
      a: toFloat32(tensor),
      b: toFloat32(other),
    });
  }
  return factors;
}

/** The same factors with A as it was at the start. */
const withA = (factors: Factors, start: Factors): Factors =>
  new Map(Array.from(factors, ([module, each]) => [module, { ...each, a: start.get(module)?.a ?? each.a }]));

/** The first `rank` directions of every matrix, at the same scale. */
export const firstDirections = (factors: Factors, rank: number): Factors =>
  new Map(
    Array.from(factors, ([module, each]) => {
      const b = each.b.filter((_, i) => i % each.rank < rank);
      return [module, { ...each, rank, alpha: each.scale * rank, a: each.a.slice(0, rank * each.in), b }];
    }),
  );

/** Numbers in [−1, 1) by a small generator of its own. */
function randomBy(seed: number): () => number {
  let state = seed * 2654435761 + 1;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return state / 2 ** 31;
  };
}

/** Factors moved by up to `size` an element, by a small generator of its own. `size` 0 sends the start back. */
export function train(start: Factors, size: number, seed: number): Factors {
  const random = randomBy(seed);
  const moved = (values: Float32Array) => values.map((value) => value + size * random());
  return new Map(
    [...start].map(([module, factors]) => [module, { ...factors, a: moved(factors.a), b: moved(factors.b) }]),
  );
}

/** Elements of a blob by module; `in` is not in it. */
export const readElements = (bytes: Uint8Array): ReadonlyMap<string, SparseUpdate> =>
  new Map(
    Array.from(readSafetensors(bytes).tensors, ([name, tensor]) => {
      const module = parseSparseTensorName(name);
      const [out = 0, perRow = 0] = tensor.shape;
      if (!module) throw new Error(`${name} is no tensor of elements`);
      return [module, { module, out, in: 0, perRow, values: toFloat32(tensor) }];
    }),
  );

const moveElements = (start: ReadonlyMap<string, SparseUpdate>, size: number, seed: number) => {
  const random = randomBy(seed);
  return new Map(
    Array.from(start, ([module, own]) => [
      module,
      { ...own, values: own.values.map((value) => value + size * random()) },
    ]),
  );
};

export class TestVolunteer {
  readonly socket: Socket;
  readonly #url: string;
  readonly #privateKey: KeyObject;
  readonly publicKey: PublicKey;
  readonly #granted: Lease[] = [];
  #onGrant: ((lease: Lease) => void) | null = null;
  readonly revoked: { leaseId: string; reason: string; lateMs: number }[] = [];
  clientId = '';

  constructor(url: string, options: { transports?: ('websocket' | 'polling')[]; identity?: TestVolunteer } = {}) {
    this.#url = url;
    const pair = options.identity ? null : generateKeyPairSync('ec', { namedCurve: 'P-256' });
    this.#privateKey = pair?.privateKey ?? (options.identity as TestVolunteer).#privateKey;
    this.publicKey = options.identity?.publicKey ?? publicKeySchema.parse(pair?.publicKey.export({ format: 'jwk' }));
    this.socket = io(`${url}${NAMESPACES.volunteer}`, {
      transports: options.transports ?? ['websocket'],
      forceNew: true,
    });
    this.socket.on('lease:granted', (data: unknown) => {
      const lease = VOLUNTEER_NOTICES['lease:granted'].parse(data);
      if (this.#onGrant) this.#onGrant(lease);
      else this.#granted.push(lease);
      this.#onGrant = null;
    });
    this.socket.on('lease:revoked', (data: unknown) =>
      this.revoked.push(VOLUNTEER_NOTICES['lease:revoked'].parse(data)),
    );
  }

  /** Sends anything; the raw acknowledgement. */
  async raw(event: string, payload: unknown): Promise<Ack<unknown>> {
    return (await this.socket.timeout(20_000).emitWithAck(event, payload)) as Ack<unknown>;
  }

  async request<E extends keyof VolunteerRequests>(
    event: E,
    payload: z.input<VolunteerRequests[E]['payload']>,
  ): Promise<z.output<VolunteerRequests[E]['reply']>> {
    const ack = ackSchema(VOLUNTEER_REQUESTS[event].reply).parse(await this.raw(event, payload));
    if (!ack.ok) throw ProtocolError.fromWire(ack.error);
    return ack.value as z.output<VolunteerRequests[E]['reply']>;
  }

  async enter(options: { name?: string; runId?: string; operatorToken?: string; invite?: string } = {}): Promise<this> {
    const { challenge } = await this.request('volunteer:hello', {
      protocolVersion: PROTOCOL_VERSION,
      runId: options.runId ?? null,
      name: options.name ?? null,
      client: { kind: 'load', version: '0' },
      operatorToken: options.operatorToken ?? null,
      invite: options.invite ?? null,
    });
    const { clientId } = await this.request('volunteer:prove', this.proof(challenge));
    this.clientId = clientId;
    return this;
  }

  proof(challenge: string): { publicKey: PublicKey; signature: string } {
    return { publicKey: this.publicKey, signature: this.sign(challenge) };
  }

  sign(challenge: string): string {
    const key = { key: this.#privateKey, dsaEncoding: 'ieee-p1363' as const };
    return sign('sha256', Buffer.from(`weft:${challenge}`), key).toString('base64url');
  }

  join(rank: number, data: DataChoice = { kind: 'task', task: null }): Promise<JoinReply> {
    const fits = { rank, fits: true, memoryBytes: 1, uploadBytes: 1, reason: 'a test' };
    return this.request('round:join', {
      device: {
        adapter: { vendor: 'test', architecture: '', device: '', description: 'test adapter', software: true },
        limits: { maxBufferSize: 1, maxStorageBufferBindingSize: 1 },
        features: [],
        deviceMemoryGiB: null,
      },
      proposal: {
        rank,
        verdicts: [fits],
        ownLimits: { maxMemoryBytes: null, maxRank: null, maxUploadBytes: null },
        stepSeconds: null,
      },
      data,
    });
  }

  /** Joins and waits for the lease, now or by notice. */
  async lease(rank: number, data?: DataChoice): Promise<Lease> {
    const reply = await this.join(rank, data);
    return reply.status === 'leased' ? reply.lease : this.granted();
  }

  /** The next lease granted by notice. */
  granted(): Promise<Lease> {
    const [lease] = this.#granted.splice(0, 1);
    if (lease) return Promise.resolve(lease);
    return new Promise((resolve) => {
      this.#onGrant = resolve;
    });
  }

  start(lease: Lease): Promise<Uint8Array> {
    return this.#blob(lease.start.sha256);
  }

  /** What stands frozen beside the start; nothing where the lease has none. */
  async side(lease: Lease): Promise<Factors> {
    return lease.side ? readSide(await this.#blob(lease.side.sha256)) : new Map();
  }

  async #blob(hash: string): Promise<Uint8Array> {
    const reply = await fetch(`${this.#url}${ROUTES.blob(hash)}`);
    const bytes = new Uint8Array(await reply.arrayBuffer());
    if (sha256(bytes) !== hash) throw new Error('the weights are not what the lease says');
    return bytes;
  }

  announcement(lease: Lease, bytes: Uint8Array, rest: Partial<UploadBegin> = {}): UploadBegin {
    return {
      leaseId: lease.leaseId,
      runHash: lease.runHash,
      startHash: lease.start.sha256,
      dtype: 'F32',
      rank: lease.grant.rank,
      bytes: bytes.length,
      sha256: sha256(bytes),
      targetTokens: 100,
      examples: lease.training.steps * lease.training.batchSize,
      steps: lease.training.steps,
      firstLoss: 5,
      lastLoss: 4,
      tokensPerSecond: 1000,
      ...rest,
    };
  }

  /** Sends an upload whole, from wherever it stands. */
  async send(lease: Lease, bytes: Uint8Array, rest: Partial<UploadBegin> = {}) {
    const begin = this.announcement(lease, bytes, rest);
    let { offset } = await this.request('upload:begin', begin);
    while (offset < bytes.length) {
      const chunk = bytes.slice(offset, offset + CHUNK_BYTES);
      offset = (await this.request('upload:chunk', { leaseId: lease.leaseId, offset, bytes: chunk })).offset;
    }
    return this.request('upload:commit', { leaseId: lease.leaseId, sha256: begin.sha256 });
  }

  /** One round: lease, start weights, training, upload. */
  async round(
    rank: number,
    options: {
      size: number;
      seed: number;
      tokens?: number;
      data?: DataChoice;
      frozenA?: boolean;
      /** Sends the first so many directions alone. */
      prunedTo?: number;
    },
  ) {
    const lease = await this.lease(rank, options.data);
    const startBytes = await this.start(lease);
    const start = readFactors(startBytes, lease.grant);
    const moved = train(start, options.size, options.seed);
    const { prunedTo } = options;
    const all = options.frozenA ? withA(moved, start) : moved;
    const update = prunedTo === undefined ? all : firstDirections(all, prunedTo);
    const rest = prunedTo === undefined ? {} : { rank: prunedTo };
    const bytes = writeFactors(update.values());
    const receipt = await this.send(lease, bytes, { targetTokens: options.tokens ?? 100, ...rest });
    return { lease, start, startBytes, side: await this.side(lease), update, bytes, receipt };
  }

  /** One round of sparse updates: the same with elements in the place of factors. */
  async sparseRound(rank: number, options: { size: number; seed: number; tokens?: number }) {
    const lease = await this.lease(rank);
    const start = readElements(await this.start(lease));
    const update = moveElements(start, options.size, options.seed);
    const bytes = writeSparse(update.values());
    const receipt = await this.send(lease, bytes, { targetTokens: options.tokens ?? 100 });
    return { lease, start, update, bytes, receipt };
  }

  close(): void {
    this.socket.close();
  }
}
