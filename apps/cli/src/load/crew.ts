// Entry of a load process: its share of the volunteers, until it is told to stop. A process holds thousands of them; how
// many is a matter of file descriptors and cores.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { httpDownloads, RunFiles, type Storage, systemClock } from '@weft/volunteer';
import type { FromCrew, Status, ToCrew } from './messages.ts';
import type { LoadPlan } from './plan.ts';
import { SharedFiles } from './shared-files.ts';
import { Tally } from './tally.ts';
import { LoadVolunteer, type VolunteerSurroundings } from './volunteer.ts';

const STATUS_EVERY_MS = 250;

// Ctrl-C reaches every process of a terminal; the one that started this decides what becomes of it.
process.on('SIGINT', () => {});

/** Keeps nothing: what is shared is shared in memory, and no two load tests should know of each other. */
const NO_STORAGE: Storage = {
  read: async () => null,
  size: async () => 0,
  writeAt: async () => undefined,
  remove: async () => undefined,
};

const tally = new Tally();
const delay = monitorEventLoopDelay({ resolution: 10 });
const volunteers: LoadVolunteer[] = [];
let finished = 0;
let status: NodeJS.Timeout | null = null;
const arrivals: NodeJS.Timeout[] = [];

function tell(message: FromCrew): void {
  process.send?.(message);
}

function start(plan: LoadPlan, first: number): void {
  const clock = systemClock();
  const downloads = httpDownloads(plan.origin);
  const random = Math.random;
  const onRetry = (error: Error | null) => {
    if (error) tally.error('download', true);
  };
  const files = new SharedFiles(new RunFiles({ downloads, storage: NO_STORAGE, clock, random, onRetry }));
  const surroundings: VolunteerSurroundings = { plan, tally, clock, downloads, storage: NO_STORAGE, files };
  for (let index = first; index < plan.volunteers; index += plan.processes) {
    const arrive = () => {
      const volunteer = new LoadVolunteer(surroundings, index);
      volunteers.push(volunteer);
      void volunteer.takePart().then(() => {
        finished += 1;
      });
    };
    arrivals.push(setTimeout(arrive, (plan.ramp * 1000 * index) / plan.volunteers));
  }
  delay.enable();
  status = setInterval(() => tell({ type: 'status', status: statusNow() }), STATUS_EVERY_MS);
}

function statusNow(): Status {
  let admitted = 0;
  let honestAdmitted = 0;
  let leased = 0;
  let version: number | null = null;
  let runId: string | null = null;
  for (const volunteer of volunteers) {
    const { state } = volunteer;
    if (!state) continue;
    if (state.connected) admitted += 1;
    if (state.connected && volunteer.honest) honestAdmitted += 1;
    if (state.connected && state.lease) leased += 1;
    if (state.run && state.run.version >= (version ?? 0)) ({ version, runId } = state.run);
  }
  const errors = Object.values(tally.honestErrors).reduce((sum, count) => sum + count, 0);
  const { receipts } = tally;
  return { arrived: volunteers.length, admitted, honestAdmitted, leased, finished, receipts, errors, version, runId };
}

async function stop(): Promise<void> {
  for (const arrival of arrivals) clearTimeout(arrival);
  if (status) clearInterval(status);
  // Before the farewells: leaving all at once is no part of what is measured.
  const report = {
    tally: tally.data(),
    rssBytes: process.memoryUsage.rss(),
    loopDelayP99Ms: delay.percentile(99) / 1e6,
  };
  tell({ type: 'report', report });
  await Promise.all(volunteers.map((volunteer) => volunteer.leave()));
}

process.on('message', (message: ToCrew) => {
  if (message.type === 'start') start(message.plan, message.first);
  else if (message.type === 'measure') {
    tally.startMeasuring();
    delay.reset();
  } else void stop().then(() => process.exit(0));
});
// Without the process that reads the report there is nothing to do this for.
process.on('disconnect', () => process.exit(0));
