// The schemas of the round machine's events as a journal keeps them. A new kind of event is added here as well: the type
// checker asks for it.
import { z } from 'zod';
import type { MachineEvent } from '../coordinator/types.ts';

type SchemaOf = { readonly [T in MachineEvent['type']]: z.ZodType<Extract<MachineEvent, { type: T }>> };

const quarantined = z.array(z.object({ leaseId: z.string(), reason: z.string() }));

const EVENTS: SchemaOf = {
  start: z.object({ type: z.literal('start') }),
  pause: z.object({ type: z.literal('pause') }),
  stop: z.object({ type: z.literal('stop') }),
  'close-round': z.object({ type: z.literal('close-round') }),
  elapsed: z.object({ type: z.literal('elapsed'), ms: z.number() }),
  present: z.object({ type: z.literal('present'), count: z.int() }),
  wish: z.object({
    type: z.literal('wish'),
    wish: z.object({
      leaseId: z.string(),
      clientId: z.string(),
      key: z.string(),
      rank: z.int(),
      task: z.string().nullable(),
      own: z.boolean(),
    }),
  }),
  withdraw: z.object({ type: z.literal('withdraw'), clientId: z.string() }),
  lost: z.object({ type: z.literal('lost'), leaseId: z.string(), reason: z.string() }),
  uploaded: z.object({ type: z.literal('uploaded'), leaseId: z.string() }),
  withdrawn: z.object({ type: z.literal('withdrawn'), leaseId: z.string(), reason: z.string() }),
  forgotten: z.object({ type: z.literal('forgotten'), clientId: z.string(), pseudonym: z.string() }),
  merged: z.object({ type: z.literal('merged'), round: z.int(), quarantined }),
  'merge-failed': z.object({ type: z.literal('merge-failed'), round: z.int(), reason: z.string(), quarantined }),
  resumed: z.object({ type: z.literal('resumed') }),
};

const typeOf = z.looseObject({
  type: z.enum(Object.keys(EVENTS) as [MachineEvent['type'], ...MachineEvent['type'][]]),
});

/** Throws a ZodError for what is no event of this version. */
export const parseMachineEvent = (value: unknown): MachineEvent => EVENTS[typeOf.parse(value).type].parse(value);
