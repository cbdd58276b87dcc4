// Everything a peer can get wrong or mean ill, at a server that has honest volunteers at the same time: each case is answered by
// name, nothing falls over, and the honest ones are as well served as before.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Admin } from '../admin.ts';
import type { Trial } from '../figure.ts';
import { Helper } from '../helper.ts';
import type { HostileCase, Outcome, Scene } from '../hostile/case.ts';
import { frameCases } from '../hostile/frames.ts';
import type { HonestAnswer, HonestOrder, Times } from '../hostile/honest.ts';
import { messageCases } from '../hostile/messages.ts';
import { requestCases } from '../hostile/requests.ts';
import { uploadCases } from '../hostile/uploads.ts';
import { Volunteer } from '../peers.ts';
import { makeIndex, ServerProcess } from '../server-process.ts';

export interface HostileOptions {
  /** How often the whole catalogue is gone through; memory is compared between the first time and the last. */
  readonly passes: number;
  /** Hostile things at the same time. */
  readonly atOnce: number;
  /** Milliseconds of honest work before, to compare with. */
  readonly beforeMs: number;
}

const LEAST_CASES = 200;
const SLOWDOWN = 2;
/** A heap that was collected differently; a leak of a kilobyte a case would show within a few passes. */
const LEAK_BYTES = 96 * 2 ** 20;
const HONEST = 8;
/** Two hundred acknowledgements a second, so that a 99th percentile stands on hundreds of them. */
const HONEST_EVERY_MS = 5;
/** Between one hostile thing and the next of a lane: this is about what they are, not about a flood, which limits refuse. */
const HOSTILE_EVERY_MS = 20;
const RETRIES = 20;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

interface Seen {
  readonly hostile: HostileCase;
  readonly outcome: Outcome;
}

/** Goes through the catalogue; what is told to wait waits and tries again, as its turn has not come. */
async function goThrough(cases: readonly HostileCase[], scene: Scene, atOnce: number): Promise<Seen[]> {
  const seen: Seen[] = [];
  // One lease has one upload at a time, and cases about it must not meet.
  const alone = cases.filter(({ kind }) => kind === 'upload' || kind === 'message');
  const together = cases.filter(({ kind }) => kind !== 'upload' && kind !== 'message');
  const one = async (queue: HostileCase[]) => {
    for (let hostile = queue.shift(); hostile; hostile = queue.shift()) {
      seen.push({ hostile, outcome: await outcomeOf(hostile, scene) });
      await pause(HOSTILE_EVERY_MS);
    }
  };
  await Promise.all([one([...alone]), ...Array.from({ length: atOnce }, () => one(together))]);
  return seen;
}

async function outcomeOf(hostile: HostileCase, scene: Scene): Promise<Outcome> {
  for (let attempt = 0; ; attempt += 1) {
    const outcome = await hostile.run(scene).catch((error: unknown) => `failed: ${String(error)}`);
    const waits = outcome === 'rate-limited' || outcome === 'overloaded';
    if (!waits || hostile.expected.includes(outcome) || attempt >= RETRIES) return outcome;
    await pause(250);
  }
}

export const hostile: Trial<HostileOptions> = async ({ passes, atOnce, beforeMs }, say) => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-hostile-'));
  const closing: (() => void | Promise<void>)[] = [() => rmSync(folder, { recursive: true, force: true })];
  try {
    const server = await ServerProcess.start({ dataDir: join(folder, 'data') });
    closing.push(() => server.end('SIGKILL'));
    const admin = new Admin(server.url);
    closing.push(() => admin.close());
    const runId = await openRun(admin);
    const enter = async (): Promise<Volunteer> => {
      const volunteer = await new Volunteer(server.url).enter(runId);
      closing.push(() => volunteer.close());
      return volunteer;
    };
    const honest = new Helper<HonestOrder, HonestAnswer>('honest-clients');
    closing.push(() => honest.end());
    const entered = await honest.tell({ do: 'enter', url: server.url, runId, count: HONEST });
    const [victimLease] = entered.done === 'enter' ? entered.leases : [];
    const attacker = await enter();
    const lease = await attacker.lease(1);
    const good = await attacker.start(lease);
    if (!victimLease) throw new Error('There is nobody honest.');
    const scene: Scene = {
      url: server.url,
      runId,
      admin,
      attacker,
      lease,
      good,
      bystander: await enter(),
      victimLease,
    };
    const cases = [...messageCases(scene), ...uploadCases(), ...requestCases(), ...frameCases()];
    const names = new Set(cases.map(({ kind, name }) => `${kind} ${name}`));

    await makeIndex(server.url, runId);
    say(`${cases.length} cases, ${passes} times. First ${beforeMs / 1000} s of honest work alone.`);
    const take = async (): Promise<Times> => {
      const answer = await honest.tell({ do: 'take' });
      if (answer.done !== 'take') throw new Error(`Asked for times, the honest ones answered ${answer.done}.`);
      return answer.times;
    };
    await honest.tell({ do: 'work', everyMs: HONEST_EVERY_MS });
    // What is new to a server is slower the first time.
    await pause(Math.min(2_000, beforeMs));
    const warm = await take();
    await pause(beforeMs);
    const before = await take();
    const seen: Seen[] = [];
    const memory: number[] = [server.residentBytes()];
    for (let pass = 0; pass < passes; pass += 1) {
      seen.push(...(await goThrough(cases, scene, atOnce)));
      memory.push(server.residentBytes());
      if (!server.isAlive) {
        const last = seen.slice(-5).map(({ hostile: { kind, name } }) => `${kind} ${name}`);
        throw new Error(`The server ended. Among the last cases: ${last.join('; ')}. ${server.errors}`);
      }
      say(`pass ${pass + 1}: ${Math.round((memory.at(-1) ?? 0) / 1e6)} MB`);
    }
    const during = await take();
    const honestFailures = [warm, before, during].flatMap(({ failures }) => failures);

    // And after all that the attacker's own lease and the honest ones deliver, and the round commits.
    await Promise.all([attacker.upload(lease, good), honest.tell({ do: 'deliver' })]);
    const ended = await admin.until(runId, ({ rounds }) => rounds.length > 0);
    const committed = ended.rounds[0]?.outcome === 'committed';

    const wrong = seen.filter(({ hostile: { expected }, outcome }) => !expected.includes(outcome));
    const typed = seen.filter(({ hostile: { kind } }) => kind !== 'frame');
    const frames = seen.length - typed.length;
    const grown = (memory.at(-1) ?? Number.NaN) - (memory[1] ?? Number.NaN);
    return {
      trial: 'hostile',
      command: `npm run load -- hostile --passes ${passes} --at-once ${atOnce}`,
      figures: [
        {
          name: 'distinct hostile cases',
          measured: `${names.size}`,
          toReach: `≥ ${LEAST_CASES}`,
          ok: names.size >= LEAST_CASES,
        },
        {
          name: 'answered otherwise than by the right error, or for frames a clean end',
          measured: `${wrong.length} of ${seen.length}`,
          toReach: '0',
          ok: wrong.length === 0,
        },
        {
          name: 'the server goes on, and has nothing to log as its own failure',
          measured: server.isAlive ? (server.errors === '' ? 'yes' : 'errors in its log') : 'it ended',
          toReach: 'yes',
          ok: server.isAlive && server.errors === '',
        },
        {
          name: 'honest acknowledgements, p99',
          measured: `${during.p99.toFixed(1)} ms after ${before.p99.toFixed(1)} ms`,
          toReach: `≤ ${SLOWDOWN} ×, none failed`,
          ok: during.p99 <= SLOWDOWN * before.p99 && honestFailures.length === 0,
        },
        {
          name: 'memory grown since the first pass',
          measured: `${(grown / 2 ** 20).toFixed(0)} MiB`,
          toReach: `≤ ${LEAK_BYTES / 2 ** 20} MiB`,
          ok: grown <= LEAK_BYTES,
        },
        {
          name: 'all deliver in the end, and the round commits',
          measured: committed ? 'yes' : 'no',
          toReach: 'yes',
          ok: committed,
        },
      ],
      detail: {
        cases: {
          typed: new Set(typed.map(({ hostile: { name } }) => name)).size,
          frames: frames / Math.max(1, passes),
        },
        outcomes: countsOf(seen),
        before,
        during,
        memoryMB: memory.map((bytes) => Math.round(bytes / 1e6)),
        wrong: wrong
          .slice(0, 50)
          .map(({ hostile: { kind, name, expected }, outcome }) => ({ kind, name, expected, outcome })),
        honestFailures: honestFailures.slice(0, 10),
        serverErrors: server.errors.slice(0, 4000),
      },
    };
  } finally {
    for (const close of closing.reverse()) await close();
  }
};

/** By kind: how often each outcome was seen. */
function countsOf(seen: readonly Seen[]): Record<string, Record<string, number>> {
  const counts: Record<string, Record<string, number>> = {};
  for (const { hostile, outcome } of seen) {
    const kind = counts[hostile.kind] ?? {};
    counts[hostile.kind] = kind;
    kind[outcome] = (kind[outcome] ?? 0) + 1;
  }
  return counts;
}

async function openRun(admin: Admin): Promise<string> {
  const { runId } = await admin.request('admin:create', {
    name: 'Hostile',
    purpose: 'Be attacked.',
    operator: 'the trial',
    ranks: [1, 4],
    tasks: ['rooms'],
    allowOwnFiles: false,
    rounds: 1,
    goal: HONEST + 1,
    minimum: 3,
    selectionMs: 3_600_000,
    trainingMs: 3_600_000,
    localSteps: 2,
    batchSize: 4,
    sequenceLength: 64,
    evaluate: false,
  });
  await admin.request('admin:start', { runId });
  return runId;
}
