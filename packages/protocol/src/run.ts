// A run: what is trained, by whom, under which rules; and the manifest of files its volunteers need.
import { z } from 'zod';
import { receiptKeySchema } from './keys.ts';
import { countSchema, idSchema, nameSchema, projectionSchema, rankSchema, sha256Schema } from './primitives.ts';

export const strategySchema = z.enum([
  'flexlora-carry',
  'flexlora-frozen-tail',
  'flexlora',
  'flora',
  'raflora',
  'zero-pad',
  'hetlora',
  'fedit',
  'ffa',
  'slora',
]);
export type StrategyName = z.infer<typeof strategySchema>;

/** The strategies whose next state is the last one and a change. */
const MERGES_CHANGES: readonly StrategyName[] = ['flexlora-carry', 'flexlora-frozen-tail', 'flora'];

/** And so the ones that take changes made from an older state. */
const TAKES_STALE = MERGES_CHANGES;

/** A scaled change is no average of factors: these cannot clip. */
const AVERAGES_FACTORS: readonly StrategyName[] = ['zero-pad', 'hetlora', 'fedit', 'slora'];

const LEAST_OPPOSITION = 0.5;

const strategyOf = (input: unknown): string =>
  input !== null && typeof input === 'object' && 'strategy' in input ? String(input.strategy) : 'this strategy';

/** How every device keeps the frozen weights: fewer bits take less memory and change every loss a little. */
export const baseDtypeSchema = z.enum(['f32', 'f16', 'q8', 'q4']);
export type BaseDtype = z.infer<typeof baseDtypeSchema>;

/** What every device steps by. `sgd` keeps nothing of a factor between steps, or one number with momentum; `adamw` two. */
export const optimiserSchema = z.enum(['adamw', 'sgd']);
export type OptimiserName = z.infer<typeof optimiserSchema>;

/** HetLoRA prunes by this γ (Cho et al. 2024) unless the run says otherwise; λ is ours: the paper's is of its own model. */
const HETLORA_PRUNING = { pruneGamma: 0.99, pruneLambda: 0.005 } as const;

/** What an admin chooses when creating a run. Times are milliseconds, learning rates per step. */
export const runSettingsSchema = z
  .object({
    name: nameSchema,
    /** One sentence for volunteers: what their work is for. */
    purpose: z.string().trim().min(1).max(200),
    operator: z.string().trim().min(1).max(80),
    strategy: strategySchema.default('flexlora-carry'),
    /** Ranks a client may be granted, ascending. */
    ranks: z.array(rankSchema).min(1).max(16),
    targets: z
      .array(projectionSchema)
      .min(1)
      .max(7)
      .default(['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']),
    /** α = alphaPerRank · rank, so that the scale s = α/r is the same at every rank. */
    alphaPerRank: z.number().positive().max(64).default(2),
    /** Names of the served tasks this run trains on. */
    tasks: z.array(idSchema).min(1).max(256),
    allowOwnFiles: z.boolean().default(true),
    /**
     * Merge fewer than 5 uploads (never fewer than 3) even when one was trained on a volunteer's own file. The fewer
     * uploads share a merge, the more it tells about each: docs/decisions/0001-own-file-minimum.md.
     */
    smallOwnFileCohorts: z.boolean().default(false),
    rounds: z.int().min(1).max(10_000).default(10),
    /** Uploads at which training ends; selection closes at ⌈1.3 · goal⌉ leases. */
    goal: z.int().min(1).max(10_000).default(4),
    /** Accepted uploads below which a round is abandoned. */
    minimum: z.int().min(1).max(10_000).default(3),
    selectionMs: z.int().min(1_000).max(86_400_000).default(120_000),
    trainingMs: z.int().min(1_000).max(86_400_000).default(600_000),
    mergingMs: z.int().min(1_000).max(86_400_000).default(300_000),
    /**
     * How long those who were too late may still deliver; 0: not at all. Late work is credited, and merged with the next
     * round where the strategy takes changes made from an older state.
     */
    lateMs: z.int().min(0).max(86_400_000).default(30_000),
    /**
     * `buffered` merges every `goal` uploads while the others train on (FedBuff, arXiv 2106.06639); `trainingMs` is then the
     * time a buffer has to fill.
     */
    mode: z.enum(['synchronous', 'buffered']).default('synchronous'),
    /** Of `buffered`: who may train at once. null: ⌈1.3 · goal⌉. */
    concurrency: z.int().min(1).max(10_000).nullable().default(null),
    /** a of the weight n·(1 + τ)^−a of work that is τ versions old; 0 counts it like fresh work. */
    stalenessPower: z.number().min(0).max(10).default(0.5),
    /** Versions that work may lag behind; older work is not merged. */
    maxStaleness: z.int().min(0).max(1_000).default(10),
    /** Share the places of a round over the run's ranks, so that quick devices cannot take them all. */
    stratify: z.boolean().default(false),
    localSteps: z.int().min(1).max(100_000).default(20),
    batchSize: z.int().min(1).max(1024).default(8),
    baseDtype: baseDtypeSchema.default('f32'),
    sequenceLength: z.int().min(2).max(65_536).default(64),
    learningRate: z.number().positive().max(10).default(5e-3),
    schedule: z.enum(['constant', 'linear', 'cosine']).default('constant'),
    warmupSteps: z.int().min(0).max(100_000).default(0),
    optimiser: optimiserSchema.default('adamw'),
    /** Of `sgd`: share of the velocity that a step keeps. */
    momentum: z.number().min(0).max(0.99).default(0),
    /** Decoupled with `adamw`; with `sgd` added to the clipped gradient, and so part of momentum. */
    weightDecay: z.number().min(0).max(1).default(0),
    /** Gradients are scaled down to this norm; 0 turns clipping off. */
    maxGradNorm: z.number().min(0).max(1000).default(1),
    /** HetLoRA's rank self-pruning: γ, the part of its directions a device keeps at least; 1: none are dropped. null: 0.99 with `hetlora`. */
    pruneGamma: z.number().positive().max(1).nullable().default(null),
    /** λ of the penalty on the directions behind γ·r. null: 0.005 with `hetlora`. */
    pruneLambda: z.number().min(0).max(100).nullable().default(null),
    maxWeightShare: z.number().min(0.05).max(1).default(0.25),
    /** β of V ← β·V + Δ and M ← M + V on the merged change Δ; 0 is none. */
    serverMomentum: z.number().min(0).max(0.99).default(0),
    /** Norm of a client's change over all matrices at most, as a multiple of the cohort's median; 0 clips nothing. */
    maxChangeNorm: z.number().min(0).max(1000).default(0),
    /**
     * Uploads that pull against the others at least this many times as strongly as these agree are not merged; 0 takes
     * all, 0.75 finds changes turned around.
     */
    rejectOpposed: z.number().min(0).max(2).default(0),
    /**
     * Rounds at the beginning that train sparse updates instead of factors (SLoRA, arXiv 2308.06522); the strategy then
     * starts from the best approximation of what they came to.
     */
    sparseRounds: z.int().min(0).max(10_000).default(0),
    /** Share of every row's elements that sparse rounds train, at places drawn from `seed`. */
    sparseDensity: z.number().positive().max(1).default(0.01),
    /** Cohort by seed, no over-selection, merge when all have reported or dropped: for experiments. */
    deterministic: z.boolean().default(false),
    /** Evaluate every committed version on the tasks' test rows (by `weft join --evaluate`). */
    evaluate: z.boolean().default(true),
    seed: z.string().min(1).max(64).default('weft'),
    /** Who may take part: everyone who has the address, or those with an invite of the operator's. */
    admission: z.enum(['open', 'invited']).default('open'),
  })
  .overwrite((run) => ({
    ...run,
    ...(run.strategy === 'hetlora' && {
      pruneGamma: run.pruneGamma ?? HETLORA_PRUNING.pruneGamma,
      pruneLambda: run.pruneLambda ?? HETLORA_PRUNING.pruneLambda,
    }),
  }))
  .refine((run) => run.strategy === 'hetlora' || run.pruneGamma === null, {
    path: ['pruneGamma'],
    message: 'must be left out: pruning ranks on devices is part of hetlora only',
  })
  .refine((run) => run.strategy === 'hetlora' || run.pruneLambda === null, {
    path: ['pruneLambda'],
    message: 'must be left out: pruning ranks on devices is part of hetlora only',
  })
  .refine((run) => run.minimum <= run.goal, { path: ['minimum'], message: 'must not exceed the goal' })
  .refine((run) => run.serverMomentum === 0 || MERGES_CHANGES.includes(run.strategy), {
    path: ['serverMomentum'],
    message: `must be 0: only ${MERGES_CHANGES.join(', ')} merge changes, which momentum works on`,
  })
  .refine((run) => run.mode === 'synchronous' || TAKES_STALE.includes(run.strategy), {
    path: ['mode'],
    error: ({ input }) =>
      `must be synchronous: ${strategyOf(input)} merges no work that started from an older version; ${TAKES_STALE.join(', ')} do`,
  })
  .refine((run) => run.mode === 'synchronous' || !run.deterministic, {
    path: ['deterministic'],
    message: 'must be off with the mode buffered: who is quicker decides what is merged together',
  })
  .refine((run) => run.mode === 'synchronous' || run.sparseRounds === 0, {
    path: ['sparseRounds'],
    message:
      'must be 0 with the mode buffered: work of before and after the last sparse round cannot be merged together',
  })
  .refine((run) => run.mode === 'buffered' || run.concurrency === null, {
    path: ['concurrency'],
    message: 'must be left out: it is a setting of the mode buffered',
  })
  .refine((run) => !run.stratify || !run.deterministic, {
    path: ['stratify'],
    message: 'must be off with deterministic rounds, which draw their cohort by seed',
  })
  .refine((run) => run.momentum === 0 || run.optimiser === 'sgd', {
    path: ['momentum'],
    message: 'must be 0: it is a setting of sgd, and adamw has its own',
  })
  .refine((run) => run.maxGradNorm > 0 || run.optimiser !== 'sgd', {
    path: ['maxGradNorm'],
    message: 'must be above 0 with sgd: only clipping bounds how far an honest update can lie from its start',
  })
  .refine((run) => run.maxChangeNorm === 0 || !AVERAGES_FACTORS.includes(run.strategy), {
    path: ['maxChangeNorm'],
    message: `must be 0: ${AVERAGES_FACTORS.join(', ')} average factors, which a clipped change has none of`,
  })
  .refine((run) => run.rejectOpposed === 0 || run.rejectOpposed >= LEAST_OPPOSITION, {
    path: ['rejectOpposed'],
    message: `must be 0 or at least ${LEAST_OPPOSITION}: less would reject honest clients who have a task of their own`,
  })
  .refine((run) => run.strategy !== 'fedit' || run.ranks.length === 1, {
    path: ['ranks'],
    message: 'must be one: fedit averages factors of one rank (zero-pad and flexlora take several)',
  })
  .refine((run) => run.strategy !== 'slora' || run.ranks.length === 1, {
    path: ['ranks'],
    message: 'must be one: slora averages factors of one rank (flexlora after sparse rounds takes several)',
  })
  .refine((run) => run.strategy !== 'slora' || run.sparseRounds > 0, {
    path: ['sparseRounds'],
    message: 'must be at least 1: slora begins with sparse rounds (without them it is fedit)',
  })
  .refine((run) => run.sparseRounds === 0 || run.sparseRounds < run.rounds, {
    path: ['sparseRounds'],
    message: 'must be fewer than the rounds: factors are trained when they are over',
  })
  .refine((run) => run.ranks.every((rank, i) => i === 0 || rank > (run.ranks[i - 1] ?? 0)), {
    path: ['ranks'],
    message: 'must be ascending without repeats',
  });
/** Settings as stored and sent: every default filled in. */
export type RunSettings = z.output<typeof runSettingsSchema>;
/** Settings as an admin may give them. */
export type RunSettingsInput = z.input<typeof runSettingsSchema>;

/** What clients prune by; null where γ = 1 leaves nothing to prune, and for strategies without pruning. */
export function pruningOf({
  pruneGamma,
  pruneLambda,
}: Pick<RunSettings, 'pruneGamma' | 'pruneLambda'>): { gamma: number; lambda: number } | null {
  if (pruneGamma === null || pruneGamma === 1) return null;
  return { gamma: pruneGamma, lambda: pruneLambda ?? 0 };
}

/** One file the server hands out. `pieces` are the SHA-256 of consecutive {@link PIECE_BYTES} pieces. */
export const manifestFileSchema = z.object({
  /** 'model' files go by their Hugging Face name; 'task' files by `<split>.jsonl`. */
  kind: z.enum(['model', 'task']),
  task: idSchema.nullable(),
  name: z.string().min(1).max(200),
  bytes: countSchema,
  sha256: sha256Schema,
  pieces: z.array(sha256Schema),
});
export type ManifestFile = z.infer<typeof manifestFileSchema>;

export const taskInfoSchema = z.object({
  name: idSchema,
  title: z.string().max(200),
  definition: z.string().max(4000),
  licence: z.string().max(200),
  trainRows: countSchema,
  testRows: countSchema,
});
export type TaskInfo = z.infer<typeof taskInfoSchema>;

export const manifestSchema = z.object({
  pieceBytes: z.int().positive(),
  model: z.object({ name: z.string().max(200), licence: z.string().max(200), parameters: countSchema }),
  tasks: z.array(taskInfoSchema),
  files: z.array(manifestFileSchema).max(100_000),
});
export type Manifest = z.infer<typeof manifestSchema>;

/** What an update depends on besides the start weights; its hash guards against merging updates of another base. */
export const runIdentitySchema = z.object({
  manifestHash: sha256Schema,
  baseDtype: baseDtypeSchema,
  sequenceLength: z.int().positive(),
  promptTemplate: z.string(),
  targets: z.array(projectionSchema),
});
/** Hash it as `sha256Hex(utf8(canonicalJson(identity)))` to get the run hash. */
export type RunIdentity = z.infer<typeof runIdentitySchema>;

export const runStateSchema = z.enum(['created', 'running', 'paused', 'completed', 'stopped']);
export type RunState = z.infer<typeof runStateSchema>;

/** A run as everyone may see it. */
export const runViewSchema = z.object({
  runId: idSchema,
  createdAt: z.iso.datetime(),
  state: runStateSchema,
  settings: runSettingsSchema,
  model: manifestSchema.shape.model,
  manifestHash: sha256Schema,
  runHash: sha256Schema,
  identity: runIdentitySchema,
  /** By rank of `settings.ranks`: rank of the frozen side adapter that comes with it at most; 0 where there is none. */
  sideRanks: z.array(countSchema),
  /** Version of the global adapter; 0 before the first commit. One version a committed round. */
  version: countSchema,
  roundsCommitted: countSchema,
  /** What the server signs this run's receipts with. */
  receiptKey: receiptKeySchema,
  /** One sentence at the end of a run; null while it goes on. */
  outcome: z.string().nullable(),
});
export type RunView = z.infer<typeof runViewSchema>;

export const phaseSchema = z.enum(['idle', 'selecting', 'training', 'merging', 'committed', 'abandoned']);
export type Phase = z.infer<typeof phaseSchema>;

/** The round now in progress, as everyone may see it. Counts are derived from leases, so they add up. */
export const roundViewSchema = z.object({
  runId: idSchema,
  /** 1 for the first round. */
  round: countSchema,
  phase: phaseSchema,
  /** The earlier round that a buffered run merges while this one trains; null where there is none. */
  mergingRound: countSchema.nullable().default(null),
  goal: countSchema,
  minimum: countSchema,
  /** Volunteers connected to this run, leased or not. */
  here: countSchema,
  leased: countSchema,
  training: countSchema,
  uploaded: countSchema,
  dropped: countSchema,
  quarantined: countSchema,
  /** Milliseconds left in this phase; null where it has no deadline. */
  remainingMs: countSchema.nullable(),
  /** Why the round waits or ended as it did, in a sentence; null where there is nothing to say. */
  reason: z.string().nullable(),
});
export type RoundView = z.infer<typeof roundViewSchema>;
