// Messages between the dashboard and the server, in the namespace /admin. The handshake's `auth` carries
// `{ protocolVersion, token }`, a session's token or the admin token; every request is acknowledged with an {@link Ack} of the reply named here.
import { z } from 'zod';
import {
  accountNameSchema,
  accountSchema,
  actorSchema,
  inviteSchema,
  inviteTokenSchema,
  inviteWishSchema,
  passwordSchema,
  type Role,
  roleSchema,
  sessionInfoSchema,
} from './access.ts';
import { countSchema, idSchema, lossSchema, rankSchema, sha256Schema } from './primitives.ts';
import { treeHeadSchema } from './receipts.ts';
import { manifestSchema, roundViewSchema, runSettingsSchema, runViewSchema, taskInfoSchema } from './run.ts';
import { progressSchema } from './volunteer-messages.ts';

export const adminAuthSchema = z.object({ protocolVersion: z.int(), token: z.string().max(200) });

export const clientStateSchema = z.enum([
  'here',
  'waiting',
  'downloading',
  'training',
  'uploading',
  'uploaded',
  'quarantined',
  'dropped',
  'gone',
  'banned',
]);
export type ClientState = z.infer<typeof clientStateSchema>;

/** One row of the dashboard's device table. */
export const clientRowSchema = z.object({
  clientId: idSchema,
  name: z.string().nullable(),
  device: z.string(),
  state: clientStateSchema,
  rank: rankSchema.nullable(),
  task: z.string().nullable(),
  progress: progressSchema.nullable(),
  uploadBytes: countSchema.nullable(),
  lastSeenMs: countSchema,
  reason: z.string().nullable(),
});
export type ClientRow = z.infer<typeof clientRowSchema>;

/** How many clients are in each state. */
export const clientCountsSchema = z.record(clientStateSchema, countSchema);
export type ClientCounts = z.infer<typeof clientCountsSchema>;

/** A page of the device table. */
export const clientQuerySchema = z.object({
  runId: idSchema,
  /** Words that must all be in the row's name, id, device, state, task or reason; `rank 8` finds a rank. */
  query: z.string().max(200).default(''),
  /** Only clients in this state; null: in any. */
  state: clientStateSchema.nullable().default(null),
  sort: z.enum(['device', 'rank', 'state', 'step', 'speed', 'loss', 'seen', 'reason']).default('state'),
  descending: z.boolean().default(false),
  offset: countSchema.default(0),
  limit: z.int().min(1).max(500).default(100),
});
export type ClientQuery = z.infer<typeof clientQuerySchema>;
/** `total`: rows that match, of which `rows` are the ones asked for. */
export const clientPageSchema = z.object({ total: countSchema, rows: z.array(clientRowSchema) });
export type ClientPage = z.infer<typeof clientPageSchema>;

/** One accepted or quarantined upload of a committed round. */
export const contributionSchema = z.object({
  clientId: idSchema,
  name: z.string().nullable(),
  /** Of the factors that were merged. */
  rank: rankSchema,
  /** The granted rank where the device pruned; null where it did not. */
  prunedFrom: rankSchema.nullable().default(null),
  task: z.string().nullable(),
  targetTokens: countSchema,
  examples: countSchema,
  uploadBytes: countSchema,
  sha256: sha256Schema,
  startVersion: countSchema,
  /** Share of the merge, 0 when quarantined or only credited. */
  weight: z.number(),
  firstLoss: lossSchema,
  lastLoss: lossSchema,
  quarantined: z.string().nullable(),
  /** Frobenius norm of its change s·B·A − S over all matrices, as sent; null in records of earlier versions. */
  changeNorm: z.number().nonnegative().nullable().default(null),
  /** Cosine of its change with the merged mean change, over all matrices; null where either is zero. */
  cosineToMean: z.number().min(-1).max(1).nullable().default(null),
  /** What its change was multiplied by; less than 1 when it was clipped. */
  clip: z.number().min(0).max(1).default(1),
  /** That it came too late, and what became of it; null where it came in time. */
  late: z.string().nullable().default(null),
  /** Why it stands out of the cohort although it was merged; null where it does not. */
  outlier: z.string().nullable().default(null),
});
export type Contribution = z.infer<typeof contributionSchema>;

/** Spectrum of the merged update of one adapted matrix. */
export const matrixSpectrumSchema = z.object({
  module: z.string(),
  /** Singular values, largest first. */
  sigma: z.array(z.number()),
  effectiveRank: z.number(),
  /** p[j]: weight share of clients whose rank reaches direction j+1. */
  p: z.array(z.number()),
  /** Frobenius norm of what truncation to the stored rank lost, relative to the whole. */
  discardedTail: z.number(),
  /** The same of the server's momentum, where there is one. */
  velocityTail: z.number().optional(),
  /** ‖M − trunc_r(M)‖ / ‖M‖ at every rank r of the run: what a client of that rank does not see. */
  truncationError: z.record(z.string(), z.number()).default({}),
});
export type MatrixSpectrum = z.infer<typeof matrixSpectrumSchema>;

export const roundRecordSchema = z.object({
  round: countSchema,
  version: countSchema,
  outcome: z.enum(['committed', 'abandoned']),
  reason: z.string().nullable(),
  endedAt: z.iso.datetime(),
  mergeMs: z.number().nonnegative(),
  contributions: z.array(contributionSchema),
  /** Mean loss of the last quarter of local steps over contributions, weighted as the merge; null when abandoned. */
  trainLoss: lossSchema.nullable(),
  /** Held-out loss by task of this version; null until evaluated. */
  heldOutLoss: z.record(z.string(), lossSchema).nullable(),
  spectra: z.array(matrixSpectrumSchema),
  /** Signed head of the hash tree over its uploads; null when abandoned, and in records of earlier versions. */
  tree: treeHeadSchema.nullable().default(null),
});
export type RoundRecord = z.infer<typeof roundRecordSchema>;

export const logLineSchema = z.object({
  at: z.iso.datetime(),
  level: z.enum(['info', 'warning', 'error']),
  text: z.string(),
});
export type LogLine = z.infer<typeof logLineSchema>;

/** Everything the dashboard draws of one run. */
export const runSnapshotSchema = z.object({
  run: runViewSchema,
  round: roundViewSchema,
  /** Those here first, then those who left; at most 200 of them. The others: `admin:clients`. */
  clients: z.array(clientRowSchema),
  /** Of all clients, shown or not. */
  clientCounts: clientCountsSchema,
  rounds: z.array(roundRecordSchema),
  /** Held-out loss of the base model by task; null until evaluated. */
  baseLoss: z.record(z.string(), lossSchema).nullable(),
  log: z.array(logLineSchema),
});
export type RunSnapshot = z.infer<typeof runSnapshotSchema>;

/** The name of those who asked to be forgotten. */
export const FORGOTTEN_NAME = 'forgotten volunteer';

/** One device's share of a run, over all rounds. */
export const contributorSchema = z.object({
  clientId: idSchema,
  name: z.string().nullable(),
  rounds: countSchema,
  targetTokens: countSchema,
  uploadBytes: countSchema,
  largestRank: countSchema,
  quarantined: countSchema,
  lastRound: countSchema,
});
export type Contributor = z.infer<typeof contributorSchema>;

/** What an operator is told of without looking; docs/metrics.md says when each begins and ends. */
export const ALERT_KINDS = [
  'stalled',
  'abandoned-rounds',
  'loss-rose',
  'non-finite-uploads',
  'merge-failed',
  'disk-full',
  'index-unreachable',
] as const;
export const alertKindSchema = z.enum(ALERT_KINDS);
export type AlertKind = z.infer<typeof alertKindSchema>;

/** Something that is wrong now. */
export const alertSchema = z.object({
  /** When it began. */
  at: z.iso.datetime(),
  /** Id of the run; null where it is the server's. */
  run: idSchema.nullable(),
  kind: alertKindSchema,
  /** What is wrong and what to do. */
  text: z.string(),
  /** Figures behind it, by name. */
  detail: z.record(z.string(), z.union([z.string(), z.number()])),
});
export type Alert = z.infer<typeof alertSchema>;

export const overviewSchema = z.object({
  model: manifestSchema.shape.model,
  tasks: z.array(taskInfoSchema),
  runs: z.array(runViewSchema),
  /** What is wrong now, oldest first. */
  alerts: z.array(alertSchema).default([]),
});
export type Overview = z.infer<typeof overviewSchema>;

/** Somebody who may not take part in any run of this server. */
export const banSchema = z.object({
  clientId: idSchema,
  name: z.string().nullable(),
  /** Shown to the one who is banned. */
  reason: z.string().trim().min(1).max(300),
  at: z.iso.datetime(),
  /** Network address that is shut out with the key; null: the key alone. */
  address: z.string().max(100).nullable(),
});
export type Ban = z.infer<typeof banSchema>;

/** `address`: shut out the address the client was last seen at too; refused where none is known. */
export const banWishSchema = z.object({
  clientId: idSchema,
  reason: banSchema.shape.reason,
  address: z.boolean().default(false),
});
export const bansSchema = z.object({ bans: z.array(banSchema) });

const ofRun = z.object({ runId: idSchema });

/** What the operator says of a command: shown with the round, in the log and in the journal. */
const saidSchema = z.string().trim().min(1).max(200).nullable().default(null);
const command = ofRun.extend({ reason: saidSchema });

const nothing = z.object({});
const ofAccount = z.object({ name: accountNameSchema });

/** Dashboard → server: payload and reply of every message, and the least role that may send it. */
export const ADMIN_REQUESTS = {
  'admin:overview': { role: 'viewer', payload: nothing, reply: overviewSchema },
  'admin:create': { role: 'operator', payload: runSettingsSchema, reply: runViewSchema },
  'admin:watch': { role: 'viewer', payload: ofRun, reply: runSnapshotSchema },
  'admin:clients': { role: 'viewer', payload: clientQuerySchema, reply: clientPageSchema },
  'admin:start': { role: 'operator', payload: ofRun, reply: runViewSchema },
  'admin:pause': { role: 'operator', payload: command, reply: runViewSchema },
  'admin:close-round': { role: 'operator', payload: command, reply: runViewSchema },
  'admin:abort-round': { role: 'operator', payload: command, reply: runViewSchema },
  'admin:extend': {
    role: 'operator',
    payload: command.extend({ ms: z.int().min(1_000).max(86_400_000) }),
    reply: runViewSchema,
  },
  'admin:stop': { role: 'operator', payload: command, reply: runViewSchema },
  'admin:bans': { role: 'viewer', payload: nothing, reply: bansSchema },
  'admin:ban': { role: 'operator', payload: banWishSchema, reply: bansSchema },
  'admin:unban': { role: 'operator', payload: z.object({ clientId: idSchema }), reply: bansSchema },
  'admin:whoami': { role: 'viewer', payload: nothing, reply: actorSchema },
  'admin:invite-create': {
    role: 'operator',
    payload: inviteWishSchema,
    reply: z.object({ invite: inviteSchema, token: inviteTokenSchema }),
  },
  'admin:invites': { role: 'viewer', payload: nothing, reply: z.object({ invites: z.array(inviteSchema) }) },
  'admin:invite-revoke': { role: 'operator', payload: z.object({ inviteId: idSchema }), reply: inviteSchema },
  'admin:accounts': { role: 'owner', payload: nothing, reply: z.object({ accounts: z.array(accountSchema) }) },
  'admin:account-add': {
    role: 'owner',
    payload: ofAccount.extend({ role: roleSchema, password: passwordSchema }),
    reply: accountSchema,
  },
  'admin:account-remove': { role: 'owner', payload: ofAccount, reply: nothing },
  'admin:account-role': { role: 'owner', payload: ofAccount.extend({ role: roleSchema }), reply: accountSchema },
  'admin:account-password': {
    role: 'owner',
    payload: ofAccount.extend({ password: passwordSchema }),
    reply: accountSchema,
  },
  'admin:sessions': { role: 'owner', payload: nothing, reply: z.object({ sessions: z.array(sessionInfoSchema) }) },
  'admin:session-revoke': {
    role: 'owner',
    payload: z.object({ sessionId: idSchema.nullable(), account: accountNameSchema.nullable() }),
    reply: z.object({ ended: countSchema }),
  },
  'admin:new-token': { role: 'owner', payload: nothing, reply: z.object({ token: z.string().max(200) }) },
} as const satisfies Record<string, { role: Role; payload: z.ZodType; reply: z.ZodType }>;

/** Server → dashboard. `run:snapshot` goes to those who watch the run, at most twice a second. */
export const ADMIN_NOTICES = {
  'admin:overview': overviewSchema,
  'run:snapshot': runSnapshotSchema,
} as const;

export type AdminRequests = typeof ADMIN_REQUESTS;
export type AdminNotices = typeof ADMIN_NOTICES;
