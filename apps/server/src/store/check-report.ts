// What one start found half-written, lost or damaged in the data folder: a line of the log each, and `report.json` for whoever asks
// later. Finds nothing itself; `check.ts` does.
import { join } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import { isDiskFull, writeJson } from './files.ts';

const findingSchema = z.object({
  kind: z.enum(['temporary', 'partial-without-lease', 'upload-missing', 'upload-damaged', 'journal-cut']),
  /** Path inside the data folder. */
  path: z.string(),
  bytes: z.int().nonnegative(),
  /** What was done about it, and what it means. */
  text: z.string(),
});
export type Finding = z.infer<typeof findingSchema>;

export const checkReportSchema = z.object({ startedAt: z.iso.datetime(), findings: z.array(findingSchema) });

/** What one start found. Each finding is a line of the log. */
export class CheckReport {
  readonly #path: string;
  readonly #startedAt: string;
  readonly #logger: Logger;
  readonly #findings: Finding[] = [];

  constructor(dataDir: string, startedAt: Date, logger: Logger) {
    this.#path = join(dataDir, 'report.json');
    this.#startedAt = startedAt.toISOString();
    this.#logger = logger;
  }

  add(finding: Finding): void {
    this.#findings.push(finding);
    this.#logger.warn({ finding: finding.kind, file: finding.path, bytes: finding.bytes }, finding.text);
  }

  get findings(): readonly Finding[] {
    return this.#findings;
  }

  /** Counts by kind. */
  counts(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { kind } of this.#findings) counts[kind] = (counts[kind] ?? 0) + 1;
    return counts;
  }

  /** Writes `report.json` and one line of summary. */
  write(): void {
    const counts = this.counts();
    this.#logger.info({ findings: counts }, `checked the data folder: ${this.#findings.length} findings`);
    try {
      writeJson(this.#path, { startedAt: this.#startedAt, findings: this.#findings });
    } catch (error) {
      // A report is no reason not to start.
      if (!isDiskFull(error)) throw error;
      this.#logger.error({ err: error }, 'report.json could not be written');
    }
  }
}
