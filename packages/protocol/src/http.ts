// The HTTP side: its paths, and what `/healthz` says. Blobs answer Range requests and carry their SHA-256 as ETag; JSON errors are `{ error: WireError }`.
import { z } from 'zod';
import { countSchema } from './primitives.ts';

export const ROUTES = {
  health: '/healthz',
  metrics: '/metrics',
  runs: '/api/runs',
  run: (runId: string) => `/api/runs/${runId}`,
  manifest: (runId: string) => `/api/runs/${runId}/manifest`,
  /** The public key receipts and round records are signed with. */
  key: '/api/key',
  /** Proof that a receipt is in the signed record of its round. */
  proof: (runId: string, receiptId: string) => `/api/runs/${runId}/receipts/${receiptId}/proof`,
  /** Model files, task files and start weights, by content. */
  blob: (sha256: string) => `/api/blobs/${sha256}`,
  /** Needs a credential (`Authorization: Bearer …`). `file` is one of the PEFT folder's, or `adapter.zip`. Query: rank, version. */
  adapter: (runId: string, file: string) => `/api/runs/${runId}/adapter/${file}`,
  /** Needs a credential. One JSON document a line: everything the dashboard draws. */
  events: (runId: string) => `/api/runs/${runId}/events.jsonl`,
  /** Needs a credential. `{ contributors: Contributor[] }`, most target tokens first. */
  contributors: (runId: string) => `/api/runs/${runId}/contributors`,
  /** POST signs in, GET lists (owner). */
  sessions: '/api/sessions',
  /** DELETE ends one. One's own needs no more than its token; others' an owner. */
  session: (sessionId: string) => `/api/sessions/${sessionId}`,
} as const;

/** Reply of `GET /healthz`, which needs no credential. */
export const healthSchema = z.object({
  status: z.literal('ok'),
  runs: countSchema,
  storage: z.object({
    /** Bytes on the disk of the data folder; null where the system does not tell. */
    freeBytes: countSchema.nullable(),
    /** Whether uploads are refused for want of room. */
    low: z.boolean(),
    /** What the last start found half-written, lost or damaged: counts by kind. */
    findings: z.record(z.string(), countSchema),
  }),
});
export type Health = z.infer<typeof healthSchema>;
