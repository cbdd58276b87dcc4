// One volunteer of the load tool: a true session on a socket of its own, begun again after whatever ended it. What is
// shared between the volunteers of a process is passed in.
import { NAMESPACES } from '@weft/protocol';
import {
  type Clock,
  codeOf,
  generateKeys,
  type httpDownloads,
  type Identity,
  identityOf,
  RECONNECTION,
  type SessionState,
  type Storage,
  sameIdentity,
  socketTransport,
  type VolunteerFiles,
  VolunteerSession,
} from '@weft/volunteer';
import { io } from 'socket.io-client';
import { misbehaving, socketOptions, wireOf } from './misbehaviour.ts';
import { type LoadPlan, misbehaviourOf, rankOfVolunteer } from './plan.ts';
import { type Tally, timed } from './tally.ts';
import { LoadTrainer } from './trainer.ts';

/** Rest before a session that failed is begun again, in milliseconds; up to twice as long by chance. */
const AGAIN_MS = 2_000;

export interface VolunteerSurroundings {
  readonly plan: LoadPlan;
  readonly tally: Tally;
  readonly clock: Clock;
  readonly downloads: ReturnType<typeof httpDownloads>;
  readonly storage: Storage;
  readonly files: VolunteerFiles;
}

export class LoadVolunteer {
  readonly #surroundings: VolunteerSurroundings;
  readonly #index: number;
  readonly honest: boolean;
  #session: VolunteerSession | null = null;
  #identity: Identity | null = null;
  #ended = false;
  #wake: (() => void) | null = null;
  #seenReceipts = 0;

  constructor(surroundings: VolunteerSurroundings, index: number) {
    this.#surroundings = surroundings;
    this.#index = index;
    this.honest = misbehaviourOf(surroundings.plan, index) === null;
  }

  /** The session's latest snapshot; null before the volunteer arrived. */
  get state(): SessionState | null {
    return this.#session?.state ?? null;
  }

  /** Takes part until the run has ended or leave() is called. Never rejects: failures are counted. */
  async takePart(): Promise<void> {
    this.#identity = await identityOf(await generateKeys(false));
    while (!this.#ended) {
      const session = this.#open(this.#identity);
      this.#session = session;
      try {
        await session.start();
        return;
      } catch (error) {
        this.#surroundings.tally.error(`${codeOf(error)} (session)`, this.honest);
        await session.close();
        await this.#rest(AGAIN_MS * (1 + Math.random()));
      }
    }
  }

  #open(identity: Identity): VolunteerSession {
    const { plan, tally, clock, downloads, storage, files } = this.#surroundings;
    const misbehaviour = misbehaviourOf(plan, this.#index);
    // A manager of its own: volunteers are different machines.
    const socket = io(`${plan.origin}${NAMESPACES.volunteer}`, {
      ...socketOptions(plan.transport),
      ...RECONNECTION,
      forceNew: true,
    });
    const onInvalidNotice = () => tally.error('bad-message (notice)', this.honest);
    const line = timed(socketTransport(socket, { clock, onInvalidNotice }), tally, this.honest);
    const transport = misbehaviour ? misbehaving(line, misbehaviour, wireOf(socket)) : line;
    let connections = 0;
    transport.onConnection(({ connected }) => {
      if (connected && connections++ > 0) tally.reconnections += 1;
    });
    const trainer = new LoadTrainer({
      seed: plan.seed + this.#index,
      think: plan.think,
      rankOf: (ranks) => rankOfVolunteer(plan, this.#index, ranks),
      misbehaviour,
    });
    const session = new VolunteerSession({
      transport,
      downloads,
      storage,
      files,
      trainer,
      identities: sameIdentity(identity),
      clock,
      client: { kind: 'load', version: '0.1.0' },
      name: `load-${this.#index}`,
      runId: plan.runId,
      ownLimits: { maxMemoryBytes: null, maxRank: null, maxUploadBytes: null },
      data: { kind: 'task', task: null },
    });
    this.#seenReceipts = 0;
    session.subscribe(({ receipts }) => {
      for (const receipt of receipts.slice(this.#seenReceipts)) {
        tally.receipts += 1;
        tally.uploadBytes += receipt.bytes;
      }
      this.#seenReceipts = receipts.length;
    });
    return session;
  }

  #rest(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
      if (this.#ended) this.#wake();
    });
  }

  /** Gives back the place and ends. Resolves when the server knows, or does not answer. */
  async leave(): Promise<void> {
    this.#ended = true;
    this.#wake?.();
    await this.#session?.close();
  }
}
