// Federated rounds in one process on one GPU: the trainer of a tab and the merging of the server, without a server between
// them. Clients take turns; what they start from and what they return are the files that would have crossed the wire.
import {
  changeParts,
  clipFactors,
  type Factors,
  type LowRank,
  normaliseWeights,
  normOfSum,
  readOutSide,
  readOutStart,
  readOutState,
  type ServedFactors,
  type State,
  type Strategy,
  storedRank,
  strategyByName,
  zeroUpdate,
} from '@weft/flexlora';
import { type LoraFactors, readFactors, writeFactors } from '@weft/formats';
import { type RunSettings, type TrainingSettings, trainingSettingsOf } from '@weft/protocol';
import { type AdaptedMatrix, type AdapterSpec, plainSpec } from '@weft/trainer';

/** What a client trains in a round; the blobs are safetensors with PEFT names. */
export interface LocalJob {
  readonly grant: AdapterSpec;
  readonly training: TrainingSettings;
  readonly start: Uint8Array;
  readonly side: Uint8Array | null;
  readonly rows: string;
}

export interface LocalResult {
  readonly update: Uint8Array;
  /** Of these factors: what was granted, or what a client that pruned has kept. */
  readonly rank: number;
  readonly targetTokens: number;
  readonly lastLoss: number;
}

export interface MatrixOfRound {
  readonly module: string;
  /** Singular values of the state after the round. */
  readonly sigma: readonly number[];
  /** p[j]: weight share of the clients whose rank reaches direction j + 1 in this matrix. */
  readonly p: readonly number[];
  readonly discardedTail: number;
}

export interface SimulatedRound {
  readonly round: number;
  /** False where nobody trained. */
  readonly trained: boolean;
  /** Mean loss of the last quarter of local steps, weighted as the merge; null where nobody trained. */
  readonly trainLoss: number | null;
  readonly matrices: readonly MatrixOfRound[];
}

export interface FederationOptions {
  readonly settings: RunSettings;
  /** The matrices the run adapts, at any rank. */
  readonly matrices: readonly AdaptedMatrix[];
  readonly clients: readonly { readonly rank: number; readonly rows: string }[];
  train(job: LocalJob): Promise<LocalResult>;
}

/** What clients of one rank are handed in a round. */
interface Served {
  readonly grant: AdapterSpec;
  readonly factors: ReadonlyMap<string, LoraFactors>;
  readonly start: Uint8Array;
  readonly side: Uint8Array | null;
}

interface Update {
  readonly factors: ReadonlyMap<string, Factors>;
  readonly of: Served;
}

function factorsOf(factors: ReadonlyMap<string, Factors>, module: string): Factors {
  const found = factors.get(module);
  if (!found) throw new RangeError(`An update lacks ${module}.`);
  return found;
}

const fitting = ({ out, in: columns }: AdaptedMatrix, rank: number): number => Math.min(rank, out, columns);

/** One run of one strategy. */
export class Federation {
  readonly #options: FederationOptions;
  readonly #strategy: Strategy;
  readonly #largestRank: number;
  readonly #states = new Map<string, State>();
  readonly #velocities = new Map<string, LowRank>();
  /** Of every client: what it began with, or has kept where it pruned itself. */
  readonly #ranks: number[];
  #round = 0;

  constructor(options: FederationOptions) {
    this.#options = options;
    this.#strategy = strategyByName(options.settings.strategy);
    this.#largestRank = Math.max(...options.settings.ranks);
    this.#ranks = options.clients.map(({ rank }) => rank);
  }

  /** The state as an adapter: at the largest rank, or whole where clients have it whole. */
  adapter(): { grant: AdapterSpec; weights: Uint8Array } {
    const rank = this.#strategy.side === 'none' ? this.#largestRank : 4 * this.#largestRank;
    const seed = this.#options.settings.seed;
    const factors = this.#pairs(rank, (state, spec) => readOutState(state, spec), seed);
    return { grant: this.#grant(rank), weights: writeFactors(factors) };
  }

  #grant(rank: number): AdapterSpec {
    const { alphaPerRank, targets } = this.#options.settings;
    return plainSpec(rank, alphaPerRank * rank, targets);
  }

  #stateOf(matrix: AdaptedMatrix): State {
    return this.#states.get(matrix.module) ?? zeroUpdate(matrix);
  }

  #pairs(
    rank: number,
    read: (state: State, spec: { rank: number; scale: number; seed: string }) => ServedFactors,
    seed: string,
  ): LoraFactors[] {
    const scale = this.#options.settings.alphaPerRank;
    return this.#options.matrices.map((matrix) => {
      const spec = { rank: fitting(matrix, rank), scale, seed: `${seed}/${matrix.module}` };
      return { ...read(this.#stateOf(matrix), spec), module: matrix.module, alpha: scale * spec.rank };
    });
  }

  #serve(rank: number): Served {
    const { settings, matrices } = this.#options;
    const { side } = this.#strategy;
    // Fresh factors are drawn anew every round; what a state lacks, the same way in all.
    const seed = side === 'whole' ? `${settings.seed}/${this.#round}` : settings.seed;
    const factors = this.#pairs(rank, (state, spec) => readOutStart(side, state, spec), seed);
    const beside = matrices.flatMap((matrix): LoraFactors[] => {
      const found = readOutSide(side, this.#stateOf(matrix), fitting(matrix, rank));
      return found ? [{ ...found, module: matrix.module, alpha: found.rank }] : [];
    });
    return {
      grant: this.#grant(rank),
      factors: new Map(factors.map((each) => [each.module, each])),
      start: writeFactors(factors),
      side: beside.length > 0 ? writeFactors(beside) : null,
    };
  }

  /** One more round; `trains` false: everybody returns what it got. Rejects with what training or merging threw. */
  async round({ trains, onClient }: { trains: boolean; onClient?(done: number): void }): Promise<SimulatedRound> {
    const { clients, settings } = this.#options;
    this.#round += 1;
    const served = new Map<number, Served>();
    const updates: { factors: ReadonlyMap<string, Factors>; tokens: number; loss: number; of: Served }[] = [];
    for (const [i, { rows }] of clients.entries()) {
      const rank = this.#ranks[i] ?? 0;
      const of = served.get(rank) ?? this.#serve(rank);
      served.set(rank, of);
      if (trains) {
        const seed = `${settings.seed}/${this.#round}/client ${i + 1}`;
        const training = trainingSettingsOf(settings, { trainable: this.#strategy.trains, sparse: null, seed });
        const job = { ...of, rows, training };
        const { update, targetTokens, lastLoss, ...sent } = await this.#options.train(job);
        this.#ranks[i] = sent.rank;
        updates.push({ of, factors: this.#read(update, sent.rank), tokens: targetTokens, loss: lastLoss });
      } else updates.push({ of, factors: of.factors, tokens: 1, loss: 0 });
      onClient?.(i + 1);
    }
    const weights = normaliseWeights(
      updates.map(({ tokens }) => tokens),
      { maxWeightShare: settings.maxWeightShare },
    );
    const clips = this.#clips(updates);
    const matrices = this.#options.matrices.map((matrix) => this.#merge(matrix, updates, weights, clips));
    const trainLoss = updates.reduce((sum, { loss }, i) => sum + (weights[i] ?? 0) * loss, 0);
    return { round: this.#round, trained: trains, trainLoss: trains ? trainLoss : null, matrices };
  }

  /** An upload's factors, at the scales they were granted. */
  #read(update: Uint8Array, rank: number): Map<string, LoraFactors> {
    const own = new Map(this.#options.matrices.map((matrix) => [matrix.module, fitting(matrix, rank)]));
    const pattern = (per: number) =>
      Object.fromEntries(Array.from(own, ([module, of]) => [module.replaceAll('.', '\\.'), per * of]));
    const { alphaPerRank } = this.#options.settings;
    const spec = { rank, alpha: alphaPerRank * rank, rankPattern: pattern(1), alphaPattern: pattern(alphaPerRank) };
    return readFactors(update, { ...spec, rslora: false }, 'an update');
  }

  /** What each change is multiplied by, as a server would. */
  #clips(updates: readonly Update[]): number[] {
    const { maxChangeNorm } = this.#options.settings;
    if (maxChangeNorm === 0) return updates.map(() => 1);
    const norms = updates.map(({ factors, of }) =>
      this.#options.matrices.map(({ module }) => {
        const change = { weight: 1, end: factorsOf(factors, module), start: factorsOf(of.factors, module) };
        return normOfSum(changeParts(change));
      }),
    );
    return clipFactors(
      norms.map((each) => Math.hypot(...each)),
      maxChangeNorm,
    );
  }

  #merge(
    matrix: AdaptedMatrix,
    updates: readonly Update[],
    weights: readonly number[],
    clips: readonly number[],
  ): MatrixOfRound {
    const { module } = matrix;
    const { next, report, velocity } = this.#strategy.mergeMatrix({
      current: this.#states.get(module) ?? null,
      updates: updates.map(({ factors, of }, i) => ({
        weight: weights[i] ?? 0,
        end: factorsOf(factors, module),
        start: this.#strategy.needsStart || (clips[i] ?? 1) < 1 ? factorsOf(of.factors, module) : null,
        clip: clips[i] ?? 1,
        name: `client ${i + 1}`,
      })),
      maxRank: storedRank(matrix, this.#largestRank),
      momentum: { beta: this.#options.settings.serverMomentum, velocity: this.#velocities.get(module) ?? null },
      name: module,
    });
    this.#states.set(module, next);
    if (velocity) this.#velocities.set(module, velocity.value);
    return { module, sigma: report.sigma, p: report.p, discardedTail: report.discardedTail };
  }
}
