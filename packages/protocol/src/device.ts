// What a volunteer tells about its device: limits, speed, and the rank it proposes, with the reasons.
import { z } from 'zod';
import { countSchema, rankSchema } from './primitives.ts';

export const deviceReportSchema = z.object({
  adapter: z.object({
    vendor: z.string().max(100),
    architecture: z.string().max(100),
    device: z.string().max(200),
    description: z.string().max(300),
    software: z.boolean(),
  }),
  limits: z.object({ maxBufferSize: z.number().nonnegative(), maxStorageBufferBindingSize: z.number().nonnegative() }),
  features: z.array(z.string().max(60)).max(100),
  /** navigator.deviceMemory in GiB, where the browser tells. */
  deviceMemoryGiB: z.number().nullable(),
});
export type DeviceReport = z.infer<typeof deviceReportSchema>;

/** The volunteer's own caps; null where it set none. */
export const ownLimitsSchema = z.object({
  maxMemoryBytes: z.number().positive().nullable(),
  maxRank: rankSchema.nullable(),
  maxUploadBytes: z.number().positive().nullable(),
});
export type OwnLimits = z.infer<typeof ownLimitsSchema>;

/** One rank of the run's list, and what it would take on this device. */
export const rankVerdictSchema = z.object({
  rank: rankSchema,
  fits: z.boolean(),
  memoryBytes: countSchema,
  uploadBytes: countSchema,
  /** Why it does not fit, or what it takes, in a sentence. */
  reason: z.string().max(300),
});
export type RankVerdict = z.infer<typeof rankVerdictSchema>;

export const rankProposalSchema = z.object({
  rank: rankSchema,
  verdicts: z.array(rankVerdictSchema).min(1).max(32),
  ownLimits: ownLimitsSchema,
  /** Seconds a training step took in a short timing of a real one; null when none was made. */
  stepSeconds: z.number().positive().nullable(),
});
export type RankProposal = z.infer<typeof rankProposalSchema>;
