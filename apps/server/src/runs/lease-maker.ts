// Turns a granted place into the lease a client receives: its grant, its training settings, and start weights read out of
// the version the round starts from. Everything follows from the run and the place, so a restart makes the same lease.
import { type Side, strategyByName } from '@weft/flexlora';
import { type BlobReference, type Grant, type Lease, trainingSettingsOf } from '@weft/protocol';
import type { LeaseEntry } from '../coordinator/types.ts';
import type { ReadOutPart } from '../merge/merger.ts';
import { grantKey, makeGrant, sparseStage, startKey } from './grants.ts';
import type { RunContext } from './run-context.ts';

type LeaseContext = Pick<RunContext, 'definition' | 'store' | 'blobs' | 'globals' | 'matrices' | 'merger' | 'timing'>;

/** Far more than the ranks and versions of the rounds in progress. */
const MOST_REMEMBERED = 256;

export class LeaseMaker {
  readonly #context: LeaseContext;
  readonly #globalOf: (version: number) => BlobReference | null;
  /** What is kept of a version, by version and key: thousands ask for the same few. */
  readonly #made = new Map<string, BlobReference>();
  readonly #grants = new Map<number, Grant>();
  /** Start weights being made, so that many clients of one rank wait for one piece of work. */
  readonly #making = new Map<string, Promise<BlobReference>>();

  /** `globalOf`: the committed state of a version; null for version 0. */
  constructor(context: LeaseContext, globalOf: (version: number) => BlobReference | null) {
    this.#context = context;
    this.#globalOf = globalOf;
  }

  get #side(): Side {
    return strategyByName(this.#context.definition.settings.strategy).side;
  }

  /** Whether rounds that start from this version train sparse updates. */
  #isSparse(version: number): boolean {
    return sparseStage(this.#context.definition.settings, version) !== null;
  }

  grantOf(rank: number): Grant {
    const known = this.#grants.get(rank);
    if (known) return known;
    const grant = makeGrant(this.#context.definition.settings, this.#context.matrices, rank);
    this.#grants.set(rank, grant);
    return grant;
  }

  async make(entry: LeaseEntry): Promise<Lease> {
    const { round, version } = entry;
    const { definition, timing } = this.#context;
    const { settings, runId, runHash } = definition;
    const grant = this.grantOf(entry.rank);
    return {
      leaseId: entry.leaseId,
      runId,
      runHash,
      round,
      startVersion: version,
      start: await this.start(version, grant),
      side: await this.side(version, grant),
      grant,
      training: trainingSettingsOf(settings, {
        trainable: strategyByName(settings.strategy).trains,
        sparse: sparseStage(settings, version),
        seed: `${settings.seed}/${round}/${entry.key}`,
      }),
      task: entry.own ? null : entry.task,
      leaseMs: timing.leaseMs,
      heartbeatMs: timing.heartbeatMs,
    };
  }

  /** Start weights of a version at a grant, or its elements: made on the first request, kept for good. */
  start(version: number, grant: Grant): Promise<BlobReference> {
    return this.#kept('start', version, grant);
  }

  /** What the strategy puts frozen beside them; null where there is nothing. Made and kept alike. */
  side(version: number, grant: Grant): Promise<BlobReference | null> {
    const none = this.#side === 'none' || version === 0 || this.#isSparse(version);
    return none ? Promise.resolve(null) : this.#kept('side', version, grant);
  }

  /** What an export or an evaluation reads out of a version: the state, even where clients train from fresh factors. */
  state(version: number, grant: Grant): Promise<BlobReference> {
    const apart = this.#side === 'whole' || this.#isSparse(version);
    return apart ? this.#kept('state', version, grant) : this.start(version, grant);
  }

  #kept(part: ReadOutPart, version: number, grant: Grant): Promise<BlobReference> {
    const { store, blobs, definition } = this.#context;
    const sparse = sparseStage(definition.settings, version);
    const key = part === 'start' ? startKey(sparse, grant) : `${grantKey(grant)}.${part}`;
    const name = `${version}/${key}`;
    const kept = this.#made.get(name) ?? store.readStart(version, key);
    if (kept && blobs.has(kept.sha256)) {
      if (this.#made.size >= MOST_REMEMBERED) this.#made.clear();
      this.#made.set(name, kept);
      return Promise.resolve(kept);
    }
    const making =
      this.#making.get(name) ?? this.#make(part, version, grant, key).finally(() => this.#making.delete(name));
    this.#making.set(name, making);
    return making;
  }

  async #make(part: ReadOutPart, version: number, grant: Grant, key: string): Promise<BlobReference> {
    const { definition, store, blobs, globals, matrices, merger } = this.#context;
    const { strategy, seed } = definition.settings;
    const global = this.#globalOf(version);
    if (version > 0 && !global) throw new RangeError(`Run ${definition.runId} has no version ${version}.`);
    // Factors that start anew are drawn anew every round.
    const isFresh = part === 'start' && this.#side === 'whole';
    const bytes = await merger.readOut({
      part,
      strategy,
      global: global ? globals.path(global.sha256) : null,
      matrices,
      grant,
      sparse: part === 'start' ? sparseStage(definition.settings, version) : null,
      seed: isFresh ? `${seed}/${version}` : seed,
    });
    const made = await blobs.put(bytes);
    store.writeStart(version, key, made);
    return made;
  }
}
