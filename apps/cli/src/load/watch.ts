// The course of one load test: arrival, the steady state that is measured, breaks and how long they took to heal.
import type { Io } from '../command.ts';
import type { Crews } from './crews.ts';
import type { Status } from './messages.ts';
import type { LoadPlan } from './plan.ts';

const LOOK_EVERY_MS = 250;
const LINE_EVERY_MS = 10_000;
/** Everybody who can be here is, or this long after the last arrival it is measured without them. Milliseconds. */
const ADMISSION_PATIENCE_MS = 120_000;

export interface Ending {
  /** Of the steady state; null: none. */
  readonly seconds: number | null;
  /** Versions to be committed from now on; null: until the run ends. */
  readonly rounds: number | null;
}

/** Many volunteers lost at once. */
export interface Outage {
  /** Seconds after the start at which the first were missed. */
  readonly atSeconds: number;
  readonly lost: number;
  /** Until all were admitted again, in seconds; null where the test ended before. */
  readonly backAfterSeconds: number | null;
}

export interface Course {
  readonly runId: string | null;
  readonly mostAdmitted: number;
  /** Least honest volunteers admitted at any look within the steady state. */
  readonly leastAdmitted: number;
  readonly mostLeased: number;
  /** Seconds until all honest volunteers were admitted for the first time; null: never. */
  readonly allAfterSeconds: number | null;
  readonly steadySeconds: number;
  readonly rounds: number;
  readonly outages: readonly Outage[];
}

/** Watches until `ending`, the end of the run, or Ctrl-C. `honest`: how many of the plan's volunteers are. */
export async function watchLoad(crews: Crews, plan: LoadPlan, honest: number, ending: Ending, io: Io): Promise<Course> {
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  const patience = plan.ramp + ADMISSION_PATIENCE_MS / 1000;
  let firstVersion: number | null = null;
  let steadyAt: number | null = null;
  let allAfterSeconds: number | null = null;
  let lastLine = began;
  let mostAdmitted = 0;
  let mostLeased = 0;
  let leastAdmitted = honest;
  let open: { at: number; least: number } | null = null;
  const outages: Outage[] = [];
  let status: Status = crews.status();

  const closeOutage = (back: number | null) => {
    if (!open) return;
    const lost = honest - open.least;
    outages.push({ atSeconds: open.at, lost, backAfterSeconds: back === null ? null : back - open.at });
    open = null;
  };
  while (!io.signal.aborted) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    status = crews.status();
    firstVersion ??= status.version;
    mostAdmitted = Math.max(mostAdmitted, status.admitted);
    mostLeased = Math.max(mostLeased, status.leased);
    const all = status.honestAdmitted >= honest;
    if (all && allAfterSeconds === null) allAfterSeconds = seconds();
    if (steadyAt === null && (all || seconds() > patience)) {
      steadyAt = seconds();
      crews.measure();
      io.note(
        `${status.honestAdmitted} of ${honest} honest volunteers are here after ${steadyAt.toFixed(1)} s; measuring.`,
      );
    }
    if (steadyAt !== null) {
      leastAdmitted = Math.min(leastAdmitted, status.honestAdmitted);
      // One who comes and goes is no outage.
      if (!open && honest - status.honestAdmitted > Math.max(1, honest / 100)) open = { at: seconds(), least: honest };
      if (open) open.least = Math.min(open.least, status.honestAdmitted);
      if (all) closeOutage(seconds());
    }
    const line = lineOf(status, plan);
    io.status(line);
    if (process.stderr.isTTY !== true && performance.now() - lastLine >= LINE_EVERY_MS) {
      lastLine = performance.now();
      io.note(line);
    }
    if (status.finished >= plan.volunteers) break;
    if (ending.seconds !== null && steadyAt !== null && seconds() - steadyAt >= ending.seconds) break;
    const rounds = (status.version ?? 0) - (firstVersion ?? 0);
    if (ending.rounds !== null && rounds >= ending.rounds) break;
  }
  closeOutage(null);
  return {
    runId: status.runId,
    mostAdmitted,
    leastAdmitted: steadyAt === null ? 0 : leastAdmitted,
    mostLeased,
    allAfterSeconds,
    steadySeconds: steadyAt === null ? 0 : seconds() - steadyAt,
    rounds: (status.version ?? 0) - (firstVersion ?? 0),
    outages,
  };
}

function lineOf(status: Status, plan: LoadPlan): string {
  const { admitted, leased, receipts, errors, version } = status;
  const number = (value: number) => value.toLocaleString('en-US');
  return `${number(admitted)} of ${number(plan.volunteers)} here · ${number(leased)} with a lease · ${number(receipts)} delivered · version ${version ?? '–'} · ${number(errors)} errors`;
}
