// The round machine's state and events as they lie on disk. States written before a field was added get what it then meant,
// so that a server that was updated goes on with the runs it finds.
import { z } from 'zod';
import type { MachineEvent, MachineState } from './types.ts';

const policySchema = z.object({
  mode: z.enum(['synchronous', 'buffered']).default('synchronous'),
  goal: z.int(),
  minimum: z.int(),
  ownFileMinimum: z.int(),
  deterministic: z.boolean(),
  seed: z.string(),
  tasks: z.array(z.string()),
  ranks: z.array(z.int()).default([]),
  stratify: z.boolean().default(false),
  concurrency: z.int().default(1),
  maxStaleness: z.int().default(0),
  rounds: z.int(),
  selectionMs: z.number(),
  graceMs: z.number(),
  trainingMs: z.number(),
  mergingMs: z.number(),
  lateMs: z.number().default(0),
  restMs: z.number(),
});

const wishSchema = z.object({
  leaseId: z.string(),
  clientId: z.string(),
  key: z.string(),
  rank: z.int(),
  task: z.string().nullable(),
  own: z.boolean(),
});

const leaseSchema = wishSchema.extend({
  state: z.enum(['live', 'uploaded', 'quarantined', 'dropped']),
  reason: z.string().nullable(),
  round: z.int(),
  version: z.int(),
});

/** Leases of earlier states are all of the round in progress, and start from the version it started from. */
function withRounds(state: unknown): unknown {
  if (state === null || typeof state !== 'object') return state;
  const { round, version, phase, leases } = state as Record<string, unknown>;
  if (!Array.isArray(leases) || typeof version !== 'number') return state;
  const from = phase === 'committed' ? version - 1 : version;
  return {
    ...state,
    leases: leases.map((lease: unknown) =>
      lease !== null && typeof lease === 'object' ? { round, version: from, ...lease } : lease,
    ),
  };
}

export const machineStateSchema: z.ZodType<MachineState> = z.preprocess(
  withRounds,
  z.object({
    policy: policySchema,
    run: z.enum(['created', 'running', 'paused', 'completed', 'stopped']),
    version: z.int(),
    round: z.int(),
    phase: z.enum(['idle', 'selecting', 'training', 'merging', 'committed', 'abandoned']),
    remainingMs: z.number().nullable(),
    graceMs: z.number().nullable(),
    places: z.int(),
    present: z.int(),
    leases: z.array(leaseSchema),
    late: z
      .array(leaseSchema.extend({ remainingMs: z.number(), arrived: z.boolean(), tried: z.boolean() }))
      .default([]),
    merge: z
      .object({
        round: z.int(),
        leases: z.array(leaseSchema),
        remainingMs: z.number(),
        reason: z.string().nullable(),
      })
      .nullable()
      .default(null),
    wishes: z.array(wishSchema),
    failures: z.int().default(0),
    reason: z.string().nullable(),
    ending: z.string().nullable().default(null),
  }),
);

const said = { reason: z.string().nullable().optional() };
const quarantinedSchema = z.array(z.object({ leaseId: z.string(), reason: z.string() }));
const lateSchema = z.array(z.string()).optional();

type SchemaOf = { readonly [T in MachineEvent['type']]: z.ZodType<Extract<MachineEvent, { type: T }>> };

/** A new kind of event is added here as well: the type checker asks for it. */
const EVENTS: SchemaOf = {
  start: z.object({ type: z.literal('start'), ...said }),
  pause: z.object({ type: z.literal('pause'), ...said }),
  stop: z.object({ type: z.literal('stop'), ...said }),
  'close-round': z.object({ type: z.literal('close-round'), ...said }),
  'abort-round': z.object({ type: z.literal('abort-round'), ...said }),
  extend: z.object({ type: z.literal('extend'), ms: z.number(), ...said }),
  elapsed: z.object({ type: z.literal('elapsed'), ms: z.number() }),
  present: z.object({ type: z.literal('present'), count: z.int() }),
  wish: z.object({ type: z.literal('wish'), wish: wishSchema }),
  withdraw: z.object({ type: z.literal('withdraw'), clientId: z.string() }),
  lost: z.object({ type: z.literal('lost'), leaseId: z.string(), reason: z.string(), late: z.boolean().optional() }),
  uploaded: z.object({ type: z.literal('uploaded'), leaseId: z.string() }),
  withdrawn: z.object({ type: z.literal('withdrawn'), leaseId: z.string(), reason: z.string() }),
  forgotten: z.object({ type: z.literal('forgotten'), clientId: z.string(), pseudonym: z.string() }),
  merged: z.object({
    type: z.literal('merged'),
    round: z.int(),
    quarantined: quarantinedSchema,
    late: lateSchema,
    outcome: z.string().optional(),
  }),
  'merge-failed': z.object({
    type: z.literal('merge-failed'),
    round: z.int(),
    reason: z.string(),
    quarantined: quarantinedSchema,
    late: lateSchema,
  }),
  resumed: z.object({ type: z.literal('resumed') }),
};

const typeOf = z.looseObject({
  type: z.enum(Object.keys(EVENTS) as [MachineEvent['type'], ...MachineEvent['type'][]]),
});

/** Throws a ZodError for what is no event of this version. */
export const parseMachineEvent = (value: unknown): MachineEvent => EVENTS[typeOf.parse(value).type].parse(value);
