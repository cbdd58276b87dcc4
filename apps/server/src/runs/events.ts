// The events of a run, one JSON document a line in its events.jsonl: each type and its fields. docs/events.md describes
// them, and a test compares it with these schemas and with what a real run writes.
import { evaluationResultSchema, idSchema, roundRecordSchema, runStateSchema, sha256Schema } from '@weft/protocol';
import { z } from 'zod';

const count = z.int().nonnegative();

export const RUN_EVENTS = {
  log: z.object({ level: z.enum(['info', 'warning', 'error']), text: z.string() }),
  granted: z.object({
    round: count,
    leaseId: idSchema,
    clientId: idSchema,
    key: z.string(),
    rank: count,
    task: z.string().nullable(),
    own: z.boolean(),
  }),
  uploaded: z.object({ clientId: idSchema, leaseId: idSchema, bytes: count, rank: count, sha256: sha256Schema }),
  withdrawn: z.object({ clientId: idSchema, receiptId: idSchema, round: count }),
  quarantined: z.object({ round: count, leaseId: idSchema, clientId: idSchema, reason: z.string() }),
  phase: z.object({ round: count, phase: z.string(), reason: z.string().nullable() }),
  committed: z.object({ record: roundRecordSchema }),
  abandoned: z.object({ record: roundRecordSchema }),
  'merge-failed': z.object({ round: count, reason: z.string() }),
  evaluated: z.object({ version: count, results: z.array(evaluationResultSchema) }),
  command: z.object({ command: z.looseObject({ type: z.string() }) }),
  'run-ended': z.object({ run: runStateSchema }),
} as const;

export type RunEvents = { [T in keyof typeof RUN_EVENTS]: z.input<(typeof RUN_EVENTS)[T]> };
export type RunEventType = keyof RunEvents;
