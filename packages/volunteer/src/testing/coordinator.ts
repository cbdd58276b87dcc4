// A small coordinator in memory that speaks the protocol truly: every message both ways is checked against its schema,
// signatures are verified, uploads are hashed. It runs simple rounds; the real one has tests of its own.
import { sha256Hex, sha256HexOfText } from '@weft/formats';
import {
  type Ack,
  type BlobReference,
  canonicalJson,
  type EvaluationJob,
  type Grant,
  isSignedBy,
  type Join,
  keyIdOf,
  type Lease,
  type Manifest,
  type ManifestFile,
  type Phase,
  PIECE_BYTES,
  PROTOCOL_VERSION,
  ProtocolError,
  parseMessage,
  type Receipt,
  ROUTES,
  type RoundView,
  type RunSettingsInput,
  type RunView,
  receiptText,
  runSettingsSchema,
  trainingSettingsOf,
  type UploadBegin,
  VOLUNTEER_NOTICES,
  VOLUNTEER_REQUESTS,
} from '@weft/protocol';
import { utf8 } from '../bytes.ts';
import { generateKeys, identityOf } from '../identity.ts';
import type {
  Downloads,
  Identity,
  NoticeName,
  NoticePayload,
  RequestName,
  RequestPayload,
  RequestReply,
} from '../ports.ts';
import { elements, factors } from './blobs.ts';
import { Wire } from './wire.ts';

export interface Sent {
  readonly event: string;
  readonly payload: unknown;
}

interface LeaseRecord {
  readonly lease: Lease;
  readonly join: Join;
  state: 'live' | 'lost' | 'uploaded';
}

export interface CoordinatorOptions {
  readonly settings?: Partial<RunSettingsInput>;
  /** Model files by name; two small ones otherwise. */
  readonly model?: ReadonlyMap<string, Uint8Array>;
  readonly pieceBytes?: number;
}

/** The server's side of one run with one volunteer. */
export class Coordinator {
  readonly sent: Sent[] = [];
  readonly heartbeats: RequestPayload<'lease:heartbeat'>[] = [];
  readonly releases: RequestPayload<'lease:release'>[] = [];
  readonly receipts: Receipt[] = [];
  readonly uploads: Uint8Array[] = [];
  readonly evaluations: RequestPayload<'evaluation:report'>[] = [];
  readonly jobs: EvaluationJob[] = [];
  readonly ranges: { sha256: string; begin: number; end: number }[] = [];
  readonly blobs = new Map<string, Uint8Array>();
  run: RunView;
  round: RoundView;
  manifest: Manifest;
  /** Answers a request instead of the coordinator, when it returns something or throws. Called before it. */
  intercept: (event: string, payload: unknown) => unknown = () => undefined;
  /** Changes bytes on their way. */
  tamper: (sha256: string, begin: number, bytes: Uint8Array) => Uint8Array = (_sha256, _begin, bytes) => bytes;
  /** Rounds open by themselves: a lease on joining, training right after. */
  automatic = true;
  protocolVersion: number = PROTOCOL_VERSION;
  /** Somebody asked to be. */
  forgotten = false;
  /** Serves start weights of this rank whatever was granted; null: as granted. */
  startRank: number | null = null;
  /** What leases come with to train beside. */
  side: Uint8Array | null = null;
  #leases: LeaseRecord[] = [];
  #wish: Join | null = null;
  #partial = new Map<string, { begin: UploadBegin; bytes: Uint8Array; offset: number }>();
  #challenge: string | null = null;
  #proved = false;
  #counter = 0;
  #wires = new Set<Wire>();
  readonly #signing: Identity;

  private constructor(run: RunView, manifest: Manifest, blobs: Map<string, Uint8Array>, signing: Identity) {
    this.#signing = signing;
    this.run = run;
    this.manifest = manifest;
    this.blobs = blobs;
    this.round = {
      runId: run.runId,
      round: 1,
      phase: 'selecting',
      mergingRound: null,
      goal: run.settings.goal,
      minimum: run.settings.minimum,
      here: 1,
      leased: 0,
      training: 0,
      uploaded: 0,
      dropped: 0,
      quarantined: 0,
      remainingMs: null,
      reason: null,
    };
  }

  static async create(options: CoordinatorOptions = {}): Promise<Coordinator> {
    const pieceBytes = options.pieceBytes ?? PIECE_BYTES;
    const model =
      options.model ??
      new Map([
        ['config.json', utf8('{"model_type":"llama"}')],
        ['model.safetensors', new Uint8Array(1000).map((_, i) => i % 251)],
      ]);
    const rows = (task: string, split: string) =>
      utf8(`${JSON.stringify({ prompt: `${split} of ${task}`, completion: 'yes' })}\n`);
    const blobs = new Map<string, Uint8Array>();
    const files: ManifestFile[] = [];
    const add = async (kind: 'model' | 'task', task: string | null, name: string, bytes: Uint8Array) => {
      const pieces: string[] = [];
      for (let at = 0; at < bytes.length; at += pieceBytes)
        pieces.push(await sha256Hex(bytes.subarray(at, at + pieceBytes)));
      const sha256 = await sha256Hex(bytes);
      blobs.set(sha256, bytes);
      files.push({ kind, task, name, bytes: bytes.length, sha256, pieces });
    };
    for (const [name, bytes] of model) await add('model', null, name, bytes);
    const settings = runSettingsSchema.parse({
      name: 'test',
      purpose: 'Test the session.',
      operator: 'nobody',
      ranks: [2, 4, 8],
      targets: ['q_proj'],
      tasks: ['yesno', 'colour'],
      localSteps: 4,
      ...options.settings,
    });
    for (const task of settings.tasks)
      for (const split of ['train', 'test']) await add('task', task, `${split}.jsonl`, rows(task, split));
    const info = { name: 'tiny', licence: 'MIT', parameters: 1 };
    const manifest: Manifest = {
      pieceBytes,
      model: info,
      tasks: settings.tasks.map((name) => ({
        name,
        title: name,
        definition: name,
        licence: 'MIT',
        trainRows: 1,
        testRows: 1,
      })),
      files,
    };
    const manifestHash = await sha256HexOfText(canonicalJson(manifest));
    const identity = {
      manifestHash,
      baseDtype: settings.baseDtype,
      sequenceLength: settings.sequenceLength,
      promptTemplate: '{prompt}',
      targets: settings.targets,
    };
    const signing = await identityOf(await generateKeys(false));
    const run: RunView = {
      runId: 'test-run',
      createdAt: new Date(0).toISOString(),
      state: 'running',
      settings,
      model: info,
      manifestHash,
      runHash: await sha256HexOfText(canonicalJson(identity)),
      identity,
      sideRanks: settings.ranks.map(() => 0),
      version: 0,
      roundsCommitted: 0,
      receiptKey: { keyId: await keyIdOf(signing.publicKey), publicKey: signing.publicKey },
      outcome: null,
    };
    return new Coordinator(run, manifest, blobs, signing);
  }

  // --- the operator's hand ----------------------------------------------------------------------------------------------

  #notify<E extends NoticeName>(event: E, payload: NoticePayload<E>): void {
    const checked = parseMessage(VOLUNTEER_NOTICES[event], payload, event) as NoticePayload<E>;
    for (const wire of this.#wires) wire.notify(event, checked);
  }

  setRun(change: Partial<RunView>): void {
    this.run = { ...this.run, ...change };
    this.#notify('run:state', this.run);
  }

  setRound(change: Partial<RoundView>): void {
    this.round = { ...this.round, ...change };
    this.#notify('round:state', this.round);
  }

  enter(phase: Phase, remainingMs: number | null = null): void {
    this.setRound({ phase, remainingMs });
  }

  announceEvaluation(version: number): void {
    this.#notify('evaluation:available', { runId: this.run.runId, version });
  }

  get live(): Lease | null {
    return this.#leases.find((record) => record.state === 'live')?.lease ?? null;
  }

  get leases(): readonly Lease[] {
    return this.#leases.map((record) => record.lease);
  }

  /** Takes the live lease away, with the notice; its upload is taken for `lateMs` yet. */
  revoke(reason: string, lateMs = 0): void {
    const lease = lateMs > 0 ? this.live : this.#lose();
    if (lease) this.#notify('lease:revoked', { leaseId: lease.leaseId, reason, lateMs });
  }

  /** Lets the live lease run out, without a notice. */
  expire(): void {
    this.#lose();
  }

  #lose(): Lease | null {
    const record = this.#leases.find((candidate) => candidate.state === 'live');
    if (record) record.state = 'lost';
    return record?.lease ?? null;
  }

  /** Grants the waiting wish. */
  async grant(): Promise<void> {
    if (!this.#wish) throw new Error('Nobody waits.');
    const lease = await this.#makeLease(this.#wish);
    this.#notify('lease:granted', lease);
  }

  get waiting(): Join | null {
    return this.#wish;
  }

  /** Ends the round as committed and opens the next. */
  commitRound(): void {
    this.setRun({ version: this.run.version + 1, roundsCommitted: this.run.roundsCommitted + 1 });
    this.setRound({ round: this.round.round + 1, phase: 'selecting' });
  }

  // --- the wire ---------------------------------------------------------------------------------------------------------

  connect(): Wire {
    const wire = new Wire(this);
    this.#wires.add(wire);
    return wire;
  }

  forgetConnection(): void {
    this.#proved = false;
    this.#challenge = null;
    this.#wish = null;
  }

  /** Answers a request as the server would: an Ack. */
  async answer(event: string, payload: unknown): Promise<Ack<unknown>> {
    this.sent.push({ event, payload });
    try {
      const instead = await this.intercept(event, payload);
      if (instead !== undefined) return { ok: true, value: instead };
      if (!Object.hasOwn(VOLUNTEER_REQUESTS, event)) throw new ProtocolError('unknown-event', event);
      const name = event as RequestName;
      return {
        ok: true,
        value: await this.#handle(name, parseMessage(VOLUNTEER_REQUESTS[name].payload, payload, event)),
      };
    } catch (error) {
      if (error instanceof ProtocolError) return { ok: false, error: error.toWire() };
      throw error;
    }
  }

  async #handle(event: RequestName, payload: unknown): Promise<unknown> {
    if (event === 'volunteer:hello') return this.#hello(payload as RequestPayload<'volunteer:hello'>);
    if (event === 'volunteer:prove') return this.#prove(payload as RequestPayload<'volunteer:prove'>);
    if (!this.#proved) throw new ProtocolError('out-of-order', 'Say hello first.');
    switch (event) {
      case 'round:join':
        return this.#join(payload as Join);
      case 'round:leave':
        this.#wish = null;
        return {};
      case 'lease:heartbeat': {
        const beat = payload as RequestPayload<'lease:heartbeat'>;
        this.#record(beat.leaseId);
        this.heartbeats.push(beat);
        return { leaseMs: 30_000, round: this.round };
      }
      case 'lease:release': {
        const release = payload as RequestPayload<'lease:release'>;
        this.releases.push(release);
        this.#lose();
        return {};
      }
      case 'upload:begin':
        return this.#begin(payload as UploadBegin);
      case 'upload:chunk':
        return this.#chunk(payload as RequestPayload<'upload:chunk'>);
      case 'upload:commit':
        return this.#commit(payload as RequestPayload<'upload:commit'>);
      case 'upload:withdraw':
        return this.#withdraw(payload as RequestPayload<'upload:withdraw'>);
      case 'volunteer:forget':
        this.forgotten = true;
        return { withdrawn: 0, deleted: this.receipts.splice(0).length, remains: ['Merged adapters stay.'] };
      case 'evaluation:next':
        return { job: this.jobs[0] ?? null };
      case 'evaluation:report':
        this.evaluations.push(payload as RequestPayload<'evaluation:report'>);
        this.jobs.shift();
        return {};
    }
  }

  #hello(hello: RequestPayload<'volunteer:hello'>): RequestReply<'volunteer:hello'> {
    if (hello.protocolVersion !== this.protocolVersion) {
      throw new ProtocolError('protocol-version', `You speak version ${hello.protocolVersion}. Reload the page.`);
    }
    if (this.#proved) throw new ProtocolError('out-of-order', 'Hello was said already.');
    this.#challenge = `challenge-${++this.#counter}`;
    return { run: this.run, challenge: this.#challenge };
  }

  async #prove(proof: RequestPayload<'volunteer:prove'>): Promise<RequestReply<'volunteer:prove'>> {
    const { publicKey, signature } = proof;
    if (!this.#challenge) throw new ProtocolError('out-of-order', 'Say hello first.');
    const good = await isSignedBy(publicKey, `weft:${this.#challenge}`, signature);
    if (!good) throw new ProtocolError('bad-signature', 'The signature is wrong.');
    this.#proved = true;
    return { clientId: 'client-1', round: this.round };
  }

  #withdraw({ receiptId }: RequestPayload<'upload:withdraw'>): RequestReply<'upload:withdraw'> {
    const receipt = this.receipts.find((candidate) => candidate.receiptId === receiptId);
    if (!receipt) throw new ProtocolError('unknown-receipt', `There is no receipt ${receiptId}.`);
    if (this.round.phase !== 'training') throw new ProtocolError('already-merged', 'The merge has begun.');
    this.receipts.splice(this.receipts.indexOf(receipt), 1);
    return { receiptId, withdrawnAt: new Date(0).toISOString() };
  }

  async #join(join: Join): Promise<RequestReply<'round:join'>> {
    if (this.run.state === 'completed') throw new ProtocolError('run-not-open', 'The run is completed.');
    const held = this.#leases.find((record) => record.state === 'live');
    if (held?.join.proposal.rank === join.proposal.rank) return { status: 'leased', lease: held.lease };
    this.#lose();
    this.#wish = join;
    const delivered = this.#leases.some(
      (record) => record.state === 'uploaded' && record.lease.round === this.round.round,
    );
    const open = this.run.state === 'running' && (this.round.phase === 'selecting' || this.round.phase === 'training');
    if (this.automatic && open && !delivered) {
      const lease = await this.#makeLease(join);
      this.round = { ...this.round, phase: 'training' };
      queueMicrotask(() => this.#notify('round:state', this.round));
      return { status: 'leased', lease };
    }
    return { status: 'waiting', reason: 'You wait.', retryAfterMs: 10_000, round: this.round };
  }

  async #serve(bytes: Uint8Array): Promise<BlobReference> {
    const sha256 = await sha256Hex(bytes);
    this.blobs.set(sha256, bytes);
    return { sha256, bytes: bytes.length };
  }

  async #makeLease(join: Join): Promise<Lease> {
    const { rank } = join.proposal;
    const { settings } = this.run;
    const sparse =
      this.run.version < settings.sparseRounds ? { density: settings.sparseDensity, seed: settings.seed } : null;
    const fill = this.run.version;
    const start = await this.#serve(
      sparse && this.startRank === null ? elements(fill) : factors(this.startRank ?? rank, fill),
    );
    const grant: Grant = { rank, alpha: 2 * rank, rankPattern: {}, alphaPattern: {}, targets: ['q_proj'] };
    const lease: Lease = {
      leaseId: `lease-${++this.#counter}`,
      runId: this.run.runId,
      runHash: this.run.runHash,
      round: this.round.round,
      startVersion: this.run.version,
      start,
      side: this.side === null ? null : await this.#serve(this.side),
      grant,
      training: trainingSettingsOf(settings, { trainable: 'both', sparse, seed: 'seed' }),
      task: join.data.kind === 'own' ? null : (join.data.task ?? settings.tasks[0] ?? null),
      leaseMs: 30_000,
      heartbeatMs: 10_000,
    };
    this.#wish = null;
    this.#leases.push({ lease, join, state: 'live' });
    return lease;
  }

  #record(leaseId: string): LeaseRecord {
    const record = this.#leases.find((candidate) => candidate.lease.leaseId === leaseId);
    if (!record) throw new ProtocolError('unknown-lease', `There is no lease ${leaseId}.`);
    if (record.state === 'lost')
      throw new ProtocolError('lease-expired', 'The lease ran out: no sign of life for 30 s.');
    return record;
  }

  #begin(begin: UploadBegin): RequestReply<'upload:begin'> {
    const { lease } = this.#record(begin.leaseId);
    if (begin.runHash !== lease.runHash) throw new ProtocolError('upload-run', 'Wrong run.');
    if (begin.startHash !== lease.start.sha256) throw new ProtocolError('upload-start', 'Wrong start.');
    const known = this.#partial.get(begin.leaseId);
    if (known?.begin.sha256 === begin.sha256) return { offset: known.offset };
    this.#partial.set(begin.leaseId, { begin, bytes: new Uint8Array(begin.bytes), offset: 0 });
    return { offset: 0 };
  }

  #chunk({ leaseId, offset, bytes }: RequestPayload<'upload:chunk'>): RequestReply<'upload:chunk'> {
    this.#record(leaseId);
    const partial = this.#partial.get(leaseId);
    if (!partial) throw new ProtocolError('out-of-order', 'Begin first.');
    if (offset !== partial.offset) throw new ProtocolError('upload-offset', `The upload stands at ${partial.offset}.`);
    partial.bytes.set(bytes, offset);
    partial.offset += bytes.length;
    return { offset: partial.offset };
  }

  async #commit({ leaseId, sha256 }: RequestPayload<'upload:commit'>): Promise<Receipt> {
    const known = this.receipts.find((receipt) => receipt.leaseId === leaseId);
    if (known) return known;
    const record = this.#record(leaseId);
    const partial = this.#partial.get(leaseId);
    if (partial?.offset !== partial?.begin.bytes || !partial)
      throw new ProtocolError('upload-offset', 'Not all there.');
    if ((await sha256Hex(partial.bytes)) !== sha256) throw new ProtocolError('upload-hash', 'Other bytes.');
    record.state = 'uploaded';
    const unsigned: Receipt = {
      receiptId: `receipt-${++this.#counter}`,
      runId: this.run.runId,
      round: record.lease.round,
      clientId: 'client-1',
      leaseId,
      sha256,
      bytes: partial.bytes.length,
      targetTokens: partial.begin.targetTokens,
      acceptedAt: new Date(0).toISOString(),
      keyId: this.run.receiptKey.keyId,
      signature: '',
    };
    const receipt = { ...unsigned, signature: await this.#signing.sign(receiptText(unsigned)) };
    this.uploads.push(partial.bytes);
    this.receipts.push(receipt);
    return receipt;
  }

  // --- files ------------------------------------------------------------------------------------------------------------

  readonly downloads: Downloads = {
    json: async (path) => {
      if (path !== ROUTES.manifest(this.run.runId)) throw new ProtocolError('not-found', path);
      return JSON.parse(JSON.stringify(this.manifest)) as unknown;
    },
    range: async (sha256, begin, end) => {
      this.ranges.push({ sha256, begin, end });
      const blob = this.blobs.get(sha256);
      if (!blob) throw new ProtocolError('not-found', `There is no blob ${sha256}.`);
      return this.tamper(sha256, begin, blob.slice(begin, end));
    },
  };
}
