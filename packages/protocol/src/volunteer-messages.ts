// Messages between a volunteer and the server, in the namespace /volunteer. Each client message is acknowledged with
// an {@link Ack} of the reply named here. README.md describes them for implementers in other languages.
import { z } from 'zod';
import { inviteTokenSchema } from './access.ts';
import { deviceReportSchema, rankProposalSchema } from './device.ts';
import { publicKeySchema } from './keys.ts';
import {
  countSchema,
  idSchema,
  lossSchema,
  nameSchema,
  projectionSchema,
  rankSchema,
  sha256Schema,
} from './primitives.ts';
import { receiptSchema } from './receipts.ts';
import {
  baseDtypeSchema,
  optimiserSchema,
  pruningOf,
  type RunSettings,
  roundViewSchema,
  runViewSchema,
} from './run.ts';

/** A content-addressed file: GET /api/blobs/<sha256>. */
export const blobReferenceSchema = z.object({ sha256: sha256Schema, bytes: countSchema });
export type BlobReference = z.infer<typeof blobReferenceSchema>;

export const helloSchema = z.object({
  protocolVersion: z.int(),
  /** null asks for the server's only open run, or the newest. */
  runId: idSchema.nullable(),
  /** Name to show on the dashboard; null for none. */
  name: nameSchema.nullable(),
  client: z.object({ kind: z.enum(['page', 'cli', 'load']), version: z.string().max(40) }),
  /** The operator's admin token, where this client evaluates for the operator. */
  operatorToken: z.string().max(200).nullable(),
  /** The invite this client came with; null for none. Only runs with `admission: 'invited'` read it. */
  invite: inviteTokenSchema.nullable().default(null),
});
export type Hello = z.infer<typeof helloSchema>;
export const helloReplySchema = z.object({ run: runViewSchema, challenge: z.string().max(200) });
export type HelloReply = z.infer<typeof helloReplySchema>;

/**
 * The key comes only now, when the run is known: a volunteer has one a run, so that its runs cannot be linked by it.
 * `signature`: base64url of the P1363 (r‖s) ECDSA-SHA-256 signature of the UTF-8 text `weft:<challenge>`.
 */
export const proveSchema = z.object({ publicKey: publicKeySchema, signature: z.string().max(200) });
export const proveReplySchema = z.object({ clientId: idSchema, round: roundViewSchema });
export type ProveReply = z.infer<typeof proveReplySchema>;

/** What the volunteer trains on: a served task (null: the next by turns), or its own file, which is never sent. */
export const dataChoiceSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('task'), task: idSchema.nullable() }),
  z.object({ kind: z.literal('own'), consent: z.literal(true), examples: countSchema }),
]);
export type DataChoice = z.infer<typeof dataChoiceSchema>;

export const joinSchema = z.object({
  device: deviceReportSchema,
  proposal: rankProposalSchema,
  data: dataChoiceSchema,
});
export type Join = z.infer<typeof joinSchema>;

/** Ranks and scales of the factors to train. A matrix not named in a pattern has the plain rank and alpha. */
export const grantSchema = z.object({
  rank: rankSchema,
  alpha: z.number().positive(),
  rankPattern: z.record(z.string(), rankSchema),
  alphaPattern: z.record(z.string(), z.number().positive()),
  targets: z.array(projectionSchema).min(1),
});
export type Grant = z.infer<typeof grantSchema>;

export const trainingSettingsSchema = z.object({
  steps: z.int().positive(),
  batchSize: z.int().positive(),
  baseDtype: baseDtypeSchema,
  sequenceLength: z.int().positive(),
  learningRate: z.number().positive(),
  schedule: z.enum(['constant', 'linear', 'cosine']),
  warmupSteps: countSchema,
  optimiser: optimiserSchema,
  /** Of `sgd`; 0 with `adamw`. */
  momentum: z.number().min(0).lt(1),
  weightDecay: z.number().min(0),
  maxGradNorm: z.number().min(0),
  /** Factors that are trained; A comes back as it was served where B alone is. */
  trainable: z.enum(['both', 'B']),
  /** HetLoRA's rank self-pruning; null where the run has none. */
  pruning: z.object({ gamma: z.number().positive().max(1), lambda: z.number().min(0) }).nullable(),
  /**
   * Train a sparse update instead of factors: start and upload hold the elements of every adapted matrix. null trains
   * factors.
   */
  sparse: z.object({ density: z.number().positive().max(1), seed: z.string() }).nullable(),
  /** Seeds the shuffling of rows; differs by client and round. */
  seed: z.string(),
});
export type TrainingSettings = z.infer<typeof trainingSettingsSchema>;

/** What a run's settings say of training; the rest is the strategy's, the round's and the client's. */
export const trainingSettingsOf = (
  settings: RunSettings,
  rest: Pick<TrainingSettings, 'trainable' | 'sparse' | 'seed'>,
): TrainingSettings => ({
  steps: settings.localSteps,
  batchSize: settings.batchSize,
  baseDtype: settings.baseDtype,
  sequenceLength: settings.sequenceLength,
  learningRate: settings.learningRate,
  schedule: settings.schedule,
  warmupSteps: settings.warmupSteps,
  optimiser: settings.optimiser,
  momentum: settings.momentum,
  weightDecay: settings.weightDecay,
  maxGradNorm: settings.maxGradNorm,
  // A sparse update has no rank to prune.
  pruning: rest.sparse ? null : pruningOf(settings),
  ...rest,
});

/** Permission to train in one round. Renewed by any message of the client that names it. */
export const leaseSchema = z.object({
  leaseId: idSchema,
  runId: idSchema,
  runHash: sha256Schema,
  round: z.int().positive(),
  /** Version of the global adapter the start weights are read out of. */
  startVersion: countSchema,
  /** Start weights: safetensors with PEFT names, at the granted ranks; elements where `training.sparse` says so. */
  start: blobReferenceSchema,
  /**
   * A frozen adapter to train beside: safetensors with PEFT names, F32, of any rank by matrix, its product B·A added at
   * scale 1; null where the strategy or the version has none.
   */
  side: blobReferenceSchema.nullable(),
  grant: grantSchema,
  training: trainingSettingsSchema,
  /** The served task to train on; null for the volunteer's own file. */
  task: idSchema.nullable(),
  /** Milliseconds without a sign of life after which the lease is lost. */
  leaseMs: z.int().positive(),
  heartbeatMs: z.int().positive(),
});
export type Lease = z.infer<typeof leaseSchema>;

export const joinReplySchema = z.discriminatedUnion('status', [
  z.object({ status: z.literal('leased'), lease: leaseSchema }),
  /** The server keeps the wish and sends `lease:granted` when a place opens; otherwise ask again after `retryAfterMs`. */
  z.object({ status: z.literal('waiting'), reason: z.string(), retryAfterMs: countSchema, round: roundViewSchema }),
]);
export type JoinReply = z.infer<typeof joinReplySchema>;

export const progressSchema = z.object({
  stage: z.enum(['waiting', 'downloading', 'training', 'uploading']),
  step: countSchema,
  steps: countSchema,
  /** Loss of the latest step, nats per labelled target token; null before the first. */
  loss: lossSchema.nullable(),
  targetTokens: countSchema,
  tokensPerSecond: z.number().nonnegative().nullable(),
});
export type Progress = z.infer<typeof progressSchema>;

export const heartbeatSchema = z.object({
  leaseId: idSchema,
  hidden: z.boolean(),
  paused: z.boolean(),
  progress: progressSchema,
});
export type Heartbeat = z.infer<typeof heartbeatSchema>;
export const heartbeatReplySchema = z.object({ leaseMs: z.int().positive(), round: roundViewSchema });

export const releaseReasonSchema = z.enum([
  'stopped',
  'page-closed',
  'device-lost',
  'out-of-memory',
  'data',
  'rank-changed',
  'failed',
]);
export type ReleaseReason = z.infer<typeof releaseReasonSchema>;
export const releaseSchema = z.object({ leaseId: idSchema, reason: releaseReasonSchema });

export const uploadBeginSchema = z.object({
  leaseId: idSchema,
  runHash: sha256Schema,
  startHash: sha256Schema,
  dtype: z.enum(['F32']),
  /** Rank of the factors sent: the granted one, or ⌊γ·r⌋ (one at least) of a device that pruned. */
  rank: rankSchema,
  bytes: z.int().positive(),
  sha256: sha256Schema,
  /** Labelled target tokens processed, counted without padding. */
  targetTokens: z.int().positive(),
  examples: z.int().positive(),
  steps: z.int().positive(),
  /** Mean training loss of the first and of the last quarter of the steps, nats per target token. */
  firstLoss: lossSchema,
  lastLoss: lossSchema,
  tokensPerSecond: z.number().nonnegative(),
});
export type UploadBegin = z.infer<typeof uploadBeginSchema>;

/** Where the upload stands: the next chunk starts here. Equal to the size when all is there. */
export const uploadOffsetSchema = z.object({ offset: countSchema });
const isBytes = (value: unknown): value is Uint8Array => value instanceof Uint8Array;
export const uploadChunkSchema = z.object({
  leaseId: idSchema,
  offset: countSchema,
  bytes: z.custom<Uint8Array>(isBytes, 'must be binary'),
});
export type UploadChunk = z.infer<typeof uploadChunkSchema>;
export const uploadCommitSchema = z.object({ leaseId: idSchema, sha256: sha256Schema });

/** Takes back an upload that no merge has begun with. Its bytes are deleted. */
export const withdrawSchema = z.object({ receiptId: idSchema });
export const withdrawReplySchema = z.object({ receiptId: idSchema, withdrawnAt: z.iso.datetime() });

/** What was removed at `volunteer:forget`, and what could not be. */
export const forgetReplySchema = z.object({
  /** Uploads that had not been merged, and now never are. */
  withdrawn: countSchema,
  /** Uploads whose bytes were deleted, those included. */
  deleted: countSchema,
  /** What stays, in sentences for people. */
  remains: z.array(z.string()),
});
export type ForgetReply = z.infer<typeof forgetReplySchema>;

export const evaluationJobSchema = z.object({
  jobId: idSchema,
  runId: idSchema,
  version: countSchema,
  /** Adapter to evaluate (safetensors with PEFT names) at `grant`; null for the base model alone. */
  adapter: blobReferenceSchema.nullable(),
  grant: grantSchema,
  tasks: z.array(idSchema).min(1),
  sequenceLength: z.int().positive(),
  baseDtype: baseDtypeSchema,
});
export type EvaluationJob = z.infer<typeof evaluationJobSchema>;
export const evaluationResultSchema = z.object({
  task: idSchema,
  loss: lossSchema,
  targetTokens: z.int().positive(),
  rows: z.int().positive(),
});
export type EvaluationResult = z.infer<typeof evaluationResultSchema>;
export const evaluationReportSchema = z.object({
  jobId: idSchema,
  results: z.array(evaluationResultSchema).min(1).max(256),
});

const emptySchema = z.object({});

/** Client → server: payload and reply of every message. */
export const VOLUNTEER_REQUESTS = {
  'volunteer:hello': { payload: helloSchema, reply: helloReplySchema },
  'volunteer:prove': { payload: proveSchema, reply: proveReplySchema },
  'round:join': { payload: joinSchema, reply: joinReplySchema },
  'round:leave': { payload: emptySchema, reply: emptySchema },
  'lease:heartbeat': { payload: heartbeatSchema, reply: heartbeatReplySchema },
  'lease:release': { payload: releaseSchema, reply: emptySchema },
  'upload:begin': { payload: uploadBeginSchema, reply: uploadOffsetSchema },
  'upload:chunk': { payload: uploadChunkSchema, reply: uploadOffsetSchema },
  'upload:commit': { payload: uploadCommitSchema, reply: receiptSchema },
  'upload:withdraw': { payload: withdrawSchema, reply: withdrawReplySchema },
  'volunteer:forget': { payload: emptySchema, reply: forgetReplySchema },
  'evaluation:next': { payload: emptySchema, reply: z.object({ job: evaluationJobSchema.nullable() }) },
  'evaluation:report': { payload: evaluationReportSchema, reply: emptySchema },
} as const;

/** Server → volunteer: payload of every notice. Notices are not acknowledged. */
export const VOLUNTEER_NOTICES = {
  'run:state': runViewSchema,
  'round:state': roundViewSchema,
  'lease:granted': leaseSchema,
  'lease:revoked': z.object({
    leaseId: idSchema,
    reason: z.string(),
    /** How long the upload is taken yet, as late work; 0: not any more. */
    lateMs: countSchema.default(0),
  }),
  'evaluation:available': z.object({ runId: idSchema, version: countSchema }),
} as const;

export type VolunteerRequests = typeof VOLUNTEER_REQUESTS;
export type VolunteerNotices = typeof VOLUNTEER_NOTICES;
