// Random schedules of events through the round machine: both modes, late work, the operator's commands, uploads taken back,
// volunteers forgotten, restarts. None may leave a round stuck or a count wrong.
import fc from 'fast-check';
import type { Trial } from '../figure.ts';
import { schedule } from '../schedules/draw.ts';
import { play, Wrong } from '../schedules/player.ts';

/** Schedules drawn at a time, so that ten thousand do not lie in memory at once. */
const BATCH = 250;

export interface ScheduleOptions {
  readonly schedules: number;
  readonly seed: number;
}

export const schedules: Trial<ScheduleOptions> = async ({ schedules: wanted, seed }, say) => {
  const found = { count: 0, stuck: 0 };
  const reached: Record<string, number> = {};
  let events = 0;
  const startedAt = performance.now();
  for (let done = 0; done < wanted; done += BATCH) {
    const drawn = fc.sample(schedule, { numRuns: Math.min(BATCH, wanted - done), seed: seed + done });
    for (const [i, each] of drawn.entries()) {
      try {
        const played = play(each);
        events += played.events;
        for (const [what, times] of Object.entries(played.reached)) reached[what] = (reached[what] ?? 0) + times;
      } catch (error) {
        if (!(error instanceof Wrong)) throw error;
        found[error.kind] += 1;
        say(`schedule ${done + i}: ${error.message}`);
        if (found.count + found.stuck <= 3) say(JSON.stringify(each));
      }
    }
    if ((done / BATCH) % 8 === 7) say(`${done + drawn.length} of ${wanted} schedules`);
  }
  const seconds = (performance.now() - startedAt) / 1000;
  return {
    trial: 'schedules',
    command: `npm run chaos -- schedules --schedules ${wanted} --seed ${seed}`,
    figures: [
      { name: 'schedules played', measured: `${wanted}`, toReach: 'as many as were asked for', ok: wanted > 0 },
      { name: 'stuck rounds', measured: `${found.stuck}`, toReach: '0', ok: found.stuck === 0 },
      { name: 'wrong counts', measured: `${found.count}`, toReach: '0', ok: found.count === 0 },
    ],
    detail: { seed, events, reached, seconds: Math.round(seconds * 10) / 10 },
  };
};
