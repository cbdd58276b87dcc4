// Ten thousand volunteers at once: connected, admitted, each with a lease, reporting every ten seconds. How long an answer
// takes is measured by the volunteers; how much memory they cost, from outside the server.
import { adminRequest, startRun } from '../admin.ts';
import { atLeast, type Figure, type TrialResult } from '../figure.ts';
import { startLoad } from '../load-process.ts';
import { withServer } from '../scratch.ts';

export interface ConnectedOptions {
  readonly volunteers: number;
  /** Of the steady state, after all have come. */
  readonly seconds: number;
  /** Seconds over which they arrive. */
  readonly ramp: number;
}

const ACK_P99_MS = 25;
const SERVER_BYTES = 900e6;
/** No round ends by itself while this is measured. */
const HOURS_MS = 6 * 3_600_000;

const megabytes = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;

export const connected = ({ volunteers, seconds, ramp }: ConnectedOptions, say: (line: string) => void) =>
  withServer('connected', async (server): Promise<TrialResult> => {
    const runId = await startRun(server.url, {
      goal: Math.min(10_000, volunteers),
      minimum: 3,
      selectionMs: HOURS_MS,
      trainingMs: HOURS_MS,
    });
    const idleBytes = server.residentBytes();
    const memory: number[] = [];
    const children: number[] = [];
    const timer = setInterval(() => {
      memory.push(server.residentBytes());
      children.push(server.childrenBytes());
    }, 5_000);
    const args = ['--volunteers', volunteers, '--ramp', ramp, '--seconds', seconds, '--think', ramp + seconds + 600];
    const report = await startLoad(server.url, args.map(String), say).report.finally(() => clearInterval(timer));
    const peak = server.peakBytes();
    const { round } = await adminRequest(server.url, 'admin:watch', { runId });
    const beats = report.acknowledgements['lease:heartbeat'];
    // To be told to come a moment later is how arrivals are spread, not a fault.
    const honest = Object.entries(report.errors.honest);
    const counted = (found: typeof honest) => found.reduce((sum, [, count]) => sum + count, 0);
    const overloaded = counted(honest.filter(([what]) => what.startsWith('overloaded (volunteer:')));
    const errors = counted(honest) - overloaded;
    const figures: Figure[] = [
      atLeast('volunteers admitted throughout', report.leastAdmitted, volunteers),
      atLeast('volunteers with a lease', report.mostLeased, volunteers),
      {
        name: 'acknowledgement of a heartbeat, p99',
        measured: beats ? `${beats.p99.toFixed(1)} ms` : 'none was measured',
        toReach: `≤ ${ACK_P99_MS} ms`,
        ok: beats !== undefined && beats.p99 <= ACK_P99_MS,
      },
      {
        name: 'memory of the server process, peak',
        measured: `${megabytes(peak)} (and ${megabytes(Math.max(0, ...children))} in its processes for index and merges)`,
        toReach: `< ${SERVER_BYTES / 1e6} MB`,
        ok: peak < SERVER_BYTES,
      },
      { name: 'errors', measured: `${errors} (and ${overloaded} asked to wait)`, toReach: '0', ok: errors === 0 },
    ];
    return {
      trial: 'connected',
      command: `npm run load -- connected --volunteers ${volunteers} --seconds ${seconds} --ramp ${ramp}`,
      figures,
      detail: {
        volunteers,
        seconds,
        ramp,
        idleBytes,
        serverBytesEvery5s: memory,
        childrenBytesEvery5s: children,
        roundAtEnd: round,
        load: report,
      },
    };
  });
