// `npm run chaos -- kills`: a server is killed without warning, over and over, while volunteers deliver; then every receipt is
// looked for in its files, and the adapters it merged are compared with those of a server that nobody killed.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { type Receipt, type RunSettingsInput, receiptSchema } from '@weft/protocol';
import { z } from 'zod';
import { Admin } from '../admin.ts';
import type { Figure, Trial } from '../figure.ts';
import { RestartedServer } from '../kills/restarted-server.ts';
import { ScriptedVolunteer, sha256 } from '../kills/volunteer.ts';

const RANKS = [1, 2, 4, 8];
const MOMENTS = ['chunk', 'commit', 'merge', 'start-up', 'any'] as const;
type Moment = (typeof MOMENTS)[number];
/** A moment that does not come is not waited for any longer. */
const MOMENT_MS = 10_000;
const ROUND_MS = 60_000;
/** Share of the trial's time that kills may take; the rest is for the same rounds without any. */
const KILLING_SHARE = 0.7;
const MINUTE_MS = 60_000;

const settingsOf = (rounds: number): RunSettingsInput => ({
  name: 'Killed',
  purpose: 'Show that nothing acknowledged is lost.',
  operator: 'a trial',
  ranks: RANKS,
  tasks: ['rooms', 'containers', 'travel'],
  rounds,
  goal: RANKS.length,
  minimum: RANKS.length,
  localSteps: 2,
  batchSize: 4,
  sequenceLength: 64,
  learningRate: 0.01,
  deterministic: true,
  evaluate: false,
});

/** Numbers in [0, 1) that a seed fixes. */
function randomBy(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A run with its server, its volunteers and its operator. */
class House {
  readonly dataDir: string;
  readonly server: RestartedServer;
  readonly volunteers: ScriptedVolunteer[] = [];
  #admin: Admin | null = null;
  #running: Promise<void>[] = [];
  runId = '';

  constructor(root: string, name: string) {
    this.dataDir = join(root, name);
    this.server = new RestartedServer(this.dataDir);
  }

  get admin(): Admin {
    if (!this.#admin) throw new Error('the house is not open');
    return this.#admin;
  }

  async open(rounds: number): Promise<void> {
    await this.server.start();
    this.#admin = new Admin(this.server.url);
    ({ runId: this.runId } = await this.admin.request('admin:create', settingsOf(rounds)));
    await this.admin.request('admin:start', { runId: this.runId });
    for (const [i, rank] of RANKS.entries()) {
      this.volunteers.push(new ScriptedVolunteer(this.server.url, this.runId, `v${i}`, rank));
    }
    this.#running = this.volunteers.map((volunteer) => volunteer.run());
  }

  async close(): Promise<void> {
    for (const volunteer of this.volunteers) volunteer.end();
    this.#admin?.close();
    await this.server.stop();
    await Promise.all(this.#running);
  }

  /** Resolves at the `count`th event of this kind, of whichever volunteer. */
  when(kind: 'chunk' | 'commit' | 'receipt', count: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      let seen = 0;
      const done = () => {
        for (const volunteer of this.volunteers) volunteer.off(kind, look);
        resolve();
      };
      const look = () => {
        seen += 1;
        if (seen >= count) done();
      };
      for (const volunteer of this.volunteers) volunteer.on(kind, look);
      signal.addEventListener('abort', done, { once: true });
    });
  }

  receipts(): Receipt[] {
    return this.volunteers.flatMap((volunteer) => volunteer.receipts);
  }

  /** Hash of each committed state, by version, and how many rounds were abandoned. */
  outcome(): { globals: Map<number, string>; contributions: Set<string>; abandoned: number } {
    const folder = join(this.dataDir, 'runs', this.runId, 'rounds');
    const globals = new Map<number, string>();
    const contributions = new Set<string>();
    let abandoned = 0;
    for (const name of existsSync(folder) ? readdirSync(folder) : []) {
      const { record, global } = roundSchema.parse(JSON.parse(readFileSync(join(folder, name), 'utf8')));
      if (global === null) abandoned += 1;
      else globals.set(record.version, global.sha256);
      for (const { sha256: hash } of record.contributions) contributions.add(`${record.round}/${hash}`);
    }
    return { globals, contributions, abandoned };
  }
}

const roundSchema = z.object({
  record: z.object({ round: z.int(), version: z.int(), contributions: z.array(z.object({ sha256: z.string() })) }),
  global: z.object({ sha256: z.string() }).nullable(),
});
const sidecarSchema = z.object({ receipt: receiptSchema });

/** Why a receipt is not kept; null when sidecar and bytes are there, and the commit of its round names it. */
function lossOf(house: House, receipt: Receipt, outcome: ReturnType<House['outcome']>): string | null {
  const sidecar = join(house.dataDir, 'runs', house.runId, 'uploads', String(receipt.round), `${receipt.leaseId}.json`);
  if (!existsSync(sidecar)) return `${receipt.receiptId}: no sidecar`;
  const kept = sidecarSchema.parse(JSON.parse(readFileSync(sidecar, 'utf8'))).receipt;
  if (JSON.stringify(kept) !== JSON.stringify(receipt)) return `${receipt.receiptId}: another receipt is kept`;
  const blob = join(house.dataDir, 'uploads', receipt.sha256.slice(0, 2), receipt.sha256);
  if (!existsSync(blob)) return `${receipt.receiptId}: no bytes`;
  if (sha256(readFileSync(blob)) !== receipt.sha256) return `${receipt.receiptId}: other bytes`;
  const isEnded = existsSync(join(house.dataDir, 'runs', house.runId, 'rounds', `${receipt.round}.json`));
  if (isEnded && !outcome.contributions.has(`${receipt.round}/${receipt.sha256}`)) {
    return `${receipt.receiptId}: not in the merge of round ${receipt.round}`;
  }
  return null;
}

/** Waits for the moment and a little more, so that kills fall before, into and after what happens then. */
async function waitFor(moment: Moment, house: House, random: () => number): Promise<boolean> {
  const given = AbortSignal.timeout(MOMENT_MS);
  const between = (from: number, to: number) => pause(from + random() * (to - from));
  if (moment === 'chunk') {
    await house.when('chunk', 1 + Math.floor(random() * 8), given);
    await between(0, 15);
  } else if (moment === 'commit') {
    await house.when('commit', 1 + Math.floor(random() * RANKS.length), given);
    await between(0, 15);
  } else if (moment === 'merge') {
    await house.when('commit', RANKS.length, given);
    await between(0, 500);
  } else await between(0, 1_500);
  return !given.aborted;
}

/** Kills the server `wanted` times, or until `deadline`; then lets it commit once more and stops it. */
async function killOver(
  killed: House,
  plan: { wanted: number; random: () => number; deadline: number },
  say: (line: string) => void,
): Promise<Record<string, number>> {
  const { wanted, random, deadline } = plan;
  const counts: Record<string, number> = {};
  // More rounds than the kills can take; the run is stopped when they are done.
  await killed.open(10_000);
  for (let done = 0; done < wanted && performance.now() < deadline; done++) {
    const moment = MOMENTS[Math.floor(random() * MOMENTS.length)] ?? 'any';
    if (moment === 'start-up' && done + 1 < wanted) {
      // Two kills: one that makes it start, one while it does.
      await killed.server.kill();
      killed.server.spawn();
      await pause(random() * 1_000);
      await killed.server.kill();
      done += 1;
      counts[moment] = (counts[moment] ?? 0) + 2;
    } else {
      const came = await waitFor(moment, killed, random);
      await killed.server.kill();
      const name = came ? moment : `${moment}, not seen`;
      counts[name] = (counts[name] ?? 0) + 1;
    }
    await killed.server.start();
    say(
      `kill ${done + 1} of ${wanted} (${moment}); ${killed.receipts().length} receipts, ${killed.outcome().globals.size} commits`,
    );
  }
  const { run } = await killed.admin.until(killed.runId, () => true, ROUND_MS);
  await killed.admin.until(killed.runId, (now) => now.run.version > run.version, ROUND_MS);
  await killed.admin.request('admin:stop', { runId: killed.runId });
  return counts;
}

/** What `work` failed of, as a line for the table; null when it did not. A trial of failures must outlive them. */
async function failureOf(what: string, work: Promise<unknown>): Promise<string | null> {
  try {
    await work;
    return null;
  } catch (error) {
    return `${what}: ${error instanceof Error ? error.message : String(error)}`;
  }
}

export const kills: Trial<Readonly<Record<string, number>>> = async (options, say) => {
  const { kills: wanted = 100, seed = 1, minutes = 12 } = options;
  const began = performance.now();
  const root = mkdtempSync(join(tmpdir(), 'weft-kills-'));
  const killed = new House(root, 'killed');
  const whole = new House(root, 'whole');
  const failures: string[] = [];
  const attempt = async (what: string, work: () => Promise<unknown>): Promise<void> => {
    const failure = await failureOf(what, work());
    if (failure === null) return;
    failures.push(failure);
    say(failure);
  };
  try {
    let counts: Record<string, number> = {};
    await attempt('killing', async () => {
      const deadline = began + KILLING_SHARE * minutes * MINUTE_MS;
      counts = await killOver(killed, { wanted, random: randomBy(seed), deadline }, say);
    });
    await attempt('stopping', () => killed.close());
    const outcome = killed.outcome();
    const versions = outcome.globals.size;
    if (versions > 0) {
      say(`the same ${versions} rounds without a kill`);
      await attempt('the run without kills', async () => {
        await whole.open(versions);
        const left = Math.max(ROUND_MS, began + minutes * MINUTE_MS - performance.now());
        await whole.admin.until(whole.runId, ({ run: now }) => now.state === 'completed', left);
      });
      await attempt('stopping', () => whole.close());
    }
    const reference = whole.outcome();
    const receipts = killed.receipts();
    const lost = receipts.flatMap((receipt) => lossOf(killed, receipt, outcome) ?? []);
    const different = [...outcome.globals].filter(([version, hash]) => reference.globals.get(version) !== hash);
    const slowest = Math.max(...killed.server.startMs);
    const mishaps = [...failures, ...killed.server.mishaps, ...whole.server.mishaps];
    const figures: Figure[] = [
      {
        name: 'kills',
        measured: String(killed.server.kills),
        toReach: `${wanted} within ${minutes} min`,
        ok: killed.server.kills >= wanted,
      },
      {
        name: 'acknowledged uploads lost',
        measured: `${lost.length} of ${receipts.length}`,
        toReach: '0',
        ok: lost.length === 0 && receipts.length > 0,
      },
      {
        name: 'merged adapters other than without kills',
        measured: `${different.length} of ${versions}`,
        toReach: '0',
        ok: different.length === 0 && versions > 0,
      },
      { name: 'rounds abandoned', measured: String(outcome.abandoned), toReach: '0', ok: outcome.abandoned === 0 },
      {
        name: 'slowest start to serving',
        measured: `${(slowest / 1000).toFixed(2)} s`,
        toReach: '≤ 10 s',
        ok: slowest <= 10_000,
      },
      {
        name: 'servers that ended otherwise than asked, and steps that failed',
        measured: mishaps.length === 0 ? '0' : `${mishaps.length}: ${mishaps[0]?.slice(0, 120)}`,
        toReach: '0',
        ok: mishaps.length === 0,
      },
    ];
    const errors = killed.volunteers.map((volunteer) => Object.fromEntries(volunteer.errors));
    const startMs = killed.server.startMs.map(Math.round);
    const detail = { seed, moments: counts, lost, different, mishaps, startMs, volunteerErrors: errors };
    return { trial: 'kills', command: `npm run chaos -- kills --kills ${wanted} --seed ${seed}`, figures, detail };
  } finally {
    await killed.close().catch(() => undefined);
    await whole.close().catch(() => undefined);
    rmSync(root, { recursive: true, force: true });
  }
};
