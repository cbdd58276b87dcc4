// A server killed under thousands of volunteers in the middle of a round, and started again: all come back, each keeps its
// lease, and the round goes on to its commit.
import type { RoundView } from '@weft/protocol';
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
const GATHER_MS = 150_000;
/** Longest time the merge of a few uploads may take. */
const END_MS = 90_000;

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
      /** Looks until `holds` or the time is over; the last thing seen either way. Null: the server has told nothing at all. */
      const until = async (what: string, holds: (now: RoundView) => boolean, ms: number) => {
        const began = performance.now();
        let now: RoundView | null = null;
        let silence = '';
        while (performance.now() - began < ms) {
          try {
            now = (await adminRequest(server.url, 'admin:watch', { runId })).round;
            if (holds(now)) return now;
          } catch (error) {
            // A server under a storm may be slow to answer; it is asked again until the time is over.
            silence = ` ${String(error)}`;
          }
          await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
        }
        missed.push(`Not in ${ms / 1000} s: ${what}.${silence} ${JSON.stringify(now)}`);
        say(missed.at(-1) ?? '');
        return now;
      };
      const missed: string[] = [];
      const args = ['--volunteers', volunteers, '--ramp', ramp, '--think', `${think}-${2 * think}`];
      const load = startLoad(server.url, args.map(String), say);
      const gathered = await until(
        'all here with a lease',
        ({ here, training, uploaded }) => here >= volunteers && training + uploaded >= volunteers,
        GATHER_MS,
      );
      say('The server is killed.');
      const { port } = server;
      await server.end('SIGKILL');
      const killed = performance.now();
      server = await ServerProcess.start({ dataDir: folder.path, port, flags: CROWD_LIMITS });
      const serving = (performance.now() - killed) / 1000;
      say(`It serves again after ${serving.toFixed(1)} s.`);
      const now = await until('all back', ({ here }) => here >= volunteers, 2 * within * 1000);
      const back = (performance.now() - killed) / 1000;
      const isBack = (now?.here ?? 0) >= volunteers;
      // Who did not come back in time has lost its lease by then, and whoever lost one has another.
      const lost = now === null ? volunteers : now.dropped;
      say(`${now?.here} are back after ${back.toFixed(1)} s, ${lost} leases lost; waiting for uploads.`);
      await until('three uploads', ({ uploaded }) => uploaded >= 3, (2 * think + 60) * 1000);
      await adminRequest(server.url, 'admin:close-round', { runId }).catch((error: unknown) => {
        missed.push(`The round could not be closed: ${String(error)}`);
      });
      const ended = await until(
        'the round ended',
        ({ phase }) => phase === 'committed' || phase === 'abandoned',
        END_MS,
      );
      load.stop();
      const report = await load.report;
      const figures: Figure[] = [
        atLeast('volunteers there before', gathered?.here ?? 0, volunteers),
        atLeast('volunteers back', now?.here ?? 0, volunteers),
        {
          name: 'all back after',
          measured: isBack ? `${back.toFixed(1)} s` : `not in ${back.toFixed(0)} s`,
          toReach: `≤ ${within} s after the kill`,
          ok: isBack && back <= within,
        },
        { name: 'leases lost', measured: String(lost), toReach: '0', ok: lost === 0 },
        {
          name: 'rounds lost',
          measured: ended?.phase === 'committed' ? '0' : `1: ${ended?.phase}, ${ended?.reason}`,
          toReach: '0',
          ok: ended?.phase === 'committed',
        },
      ];
      return {
        trial: 'storm',
        command: `npm run load -- storm --volunteers ${volunteers} --ramp ${ramp} --within ${within} --think ${think}`,
        figures,
        detail: {
          volunteers,
          servingAgainSeconds: serving,
          backSeconds: back,
          missed,
          roundAtEnd: ended,
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
