// Honest volunteers at work while others mean ill, in a process of their own: what delays their acknowledgements is then the
// server and not the attackers' process. Told what to do by messages of the trial.
import type { Lease } from '@weft/protocol';
import { Volunteer } from '../peers.ts';

export type HonestOrder =
  | { readonly do: 'enter'; readonly url: string; readonly runId: string; readonly count: number }
  | { readonly do: 'work'; readonly everyMs: number }
  /** What was measured since the last time. */
  | { readonly do: 'take' }
  | { readonly do: 'deliver' };
export interface Times {
  /** Milliseconds. */
  readonly p50: number;
  readonly p99: number;
  readonly count: number;
  /** Longest the process itself was busy: what it measures is no better than that. */
  readonly ownDelayMs: number;
  readonly failures: readonly string[];
}
export type HonestAnswer =
  | { readonly done: 'enter'; readonly leases: readonly Lease[] }
  | { readonly done: 'work' | 'deliver' }
  | { readonly done: 'take'; readonly times: Times }
  | { readonly failed: string };

interface One {
  readonly volunteer: Volunteer;
  readonly lease: Lease;
}

let people: One[] = [];
let times: number[] = [];
let failures: string[] = [];
let ownDelayMs = 0;
let timer: NodeJS.Timeout | null = null;

async function beat({ volunteer, lease }: One): Promise<void> {
  const startedAt = performance.now();
  try {
    await volunteer.heartbeat(lease);
    times.push(performance.now() - startedAt);
  } catch (error) {
    failures.push(String(error));
  }
}

function work(everyMs: number): void {
  let turn = 0;
  let last = performance.now();
  timer = setInterval(() => {
    const now = performance.now();
    ownDelayMs = Math.max(ownDelayMs, now - last - everyMs);
    last = now;
    const one = people[turn++ % people.length];
    if (one) void beat(one);
  }, everyMs);
}

function take(): Times {
  const sorted = times.sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
  const taken = { p50: at(0.5), p99: at(0.99), count: sorted.length, ownDelayMs, failures: failures.slice(0, 10) };
  times = [];
  failures = [];
  ownDelayMs = 0;
  return taken;
}

async function obey(order: HonestOrder): Promise<HonestAnswer> {
  switch (order.do) {
    case 'enter':
      people = await Promise.all(
        Array.from({ length: order.count }, async () => {
          const volunteer = await new Volunteer(order.url).enter(order.runId);
          return { volunteer, lease: await volunteer.lease(1) };
        }),
      );
      return { done: 'enter', leases: people.map(({ lease }) => lease) };
    case 'work':
      work(order.everyMs);
      return { done: 'work' };
    case 'take':
      return { done: 'take', times: take() };
    case 'deliver':
      if (timer) clearInterval(timer);
      await Promise.all(
        people.map(async ({ volunteer, lease }) => volunteer.upload(lease, await volunteer.start(lease))),
      );
      return { done: 'deliver' };
  }
}

process.on('message', (order: HonestOrder) => {
  obey(order).then(
    (answer) => process.send?.(answer),
    (error: unknown) => process.send?.({ failed: String(error) } satisfies HonestAnswer),
  );
});
process.on('disconnect', () => process.exit(0));
