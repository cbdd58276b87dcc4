// A server killed under thousands of volunteers in the middle of a round, and started again: all come back, each keeps its
// lease, and the round goes on to its commit.
import { adminRequest, startRun } from '../admin.ts';
import { atLeast, type Figure, type TrialResult } from '../figure.ts';
import { startLoad } from '../load-process.ts';
import { scratchFolder } from '../scratch.ts';
import { CROWD_LIMITS, ServerProcess } from '../server-process.ts';

export interface StormOptions {
  readonly volunteers: number;
  /** Seconds over which they arrive before. */
  readonly ramp: number;
  /** Seconds they may take to come back. */
  readonly within: number;
  /** Seconds the quickest takes to train; the slowest takes twice as long. */
  readonly think: number;
}

const HOURS_MS = 6 * 3_600_000;
const LOOK_EVERY_MS = 500;
/** Longest time the whole cohort may take to gather, in milliseconds. */
const GATHER_MS = 600_000;

export async function storm(
  { volunteers, ramp, within, think }: StormOptions,
  say: (line: string) => void,
): Promise<TrialResult> {
  const folder = scratchFolder('storm');
  try {
    let server = await ServerProcess.start({ dataDir: folder.path, flags: CROWD_LIMITS });
    try {
      const runId = await startRun(server.url, {
        goal: Math.min(10_000, volunteers),
        minimum: 3,
        selectionMs: HOURS_MS,
        trainingMs: HOURS_MS,
      });
      const round = async () => (await adminRequest(server.url, 'admin:watch', { runId })).round;
      const until = async (what: string, holds: (now: Awaited<ReturnType<typeof round>>) => boolean, ms: number) => {
        const began = performance.now();
        for (;;) {
          const now = await round();
          if (holds(now)) return { now, ms: performance.now() - began };
          if (performance.now() - began > ms) throw new Error(`not in ${ms / 1000} s: ${what}; ${JSON.stringify(now)}`);
          await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
        }
      };
      const args = ['--volunteers', volunteers, '--ramp', ramp, '--think', `${think}-${2 * think}`];
      const load = startLoad(server.url, args.map(String), say);
      await until(
        'all here with a lease',
        ({ here, training }) => here >= volunteers && training >= volunteers,
        GATHER_MS,
      );
      say('All are here and train; the server is killed.');
      const { port } = server;
      await server.end('SIGKILL');
      const killed = performance.now();
      server = await ServerProcess.start({ dataDir: folder.path, port, flags: CROWD_LIMITS });
      const serving = performance.now() - killed;
      say(`It serves again after ${(serving / 1000).toFixed(1)} s.`);
      const { now } = await until('all back', ({ here }) => here >= volunteers, 4 * within * 1000);
      const back = (performance.now() - killed) / 1000;
      // A lease whose holder did not come back in time would run out now.
      const lost = now.leased - now.training - now.uploaded;
      say(`All are back after ${back.toFixed(1)} s, ${lost} leases lost; waiting for uploads.`);
      await until('three uploads', ({ uploaded }) => uploaded >= 3, (4 * think + 60) * 1000);
      await adminRequest(server.url, 'admin:close-round', { runId });
      const ended = await until(
        'the round ended',
        ({ phase }) => phase === 'committed' || phase === 'abandoned',
        300_000,
      );
      load.stop();
      const report = await load.report;
      const figures: Figure[] = [
        atLeast('volunteers back', now.here, volunteers),
        {
          name: 'all back after',
          measured: `${back.toFixed(1)} s`,
          toReach: `≤ ${within} s after the kill`,
          ok: back <= within,
        },
        { name: 'leases lost', measured: String(lost), toReach: '0', ok: lost === 0 },
        {
          name: 'rounds lost',
          measured: ended.now.phase === 'committed' ? '0' : `1: ${ended.now.reason}`,
          toReach: '0',
          ok: ended.now.phase === 'committed',
        },
      ];
      return {
        trial: 'storm',
        command: `npm run load -- storm --volunteers ${volunteers} --ramp ${ramp} --within ${within} --think ${think}`,
        figures,
        detail: {
          volunteers,
          servingAgainSeconds: serving / 1000,
          backSeconds: back,
          roundAtEnd: ended.now,
          load: report,
        },
      };
    } finally {
      await server.end();
    }
  } finally {
    folder.remove();
  }
}
