// The main journey: an admin starts a run on the dashboard, four tabs of four ranks train three tasks and a file of their
// own for three rounds; one changes its rank, one closes in mid-round, the server is killed once, and the run goes on.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Browser, expect, type Page, test } from '@playwright/test';
import { VolunteerTab } from '@weft/e2e/fleet';
import { PROJECTIONS, parseModelConfig, readAdapter } from '@weft/formats';
import { ROUTES, type RoundRecord, roundRecordSchema, runViewSchema } from '@weft/protocol';
import { plannedMemory } from '@weft/trainer';
import { z } from 'zod';
import { createRun, signIn } from './support/admin-page.ts';
import { WeftServer } from './support/weft-server.ts';
import { Wiretap } from './support/wiretap.ts';

const RANKS = [2, 4, 8, 16] as const;
/** What `weft serve` serves unless told otherwise. */
const MODEL_DIR = join(import.meta.dirname, '..', '..', 'assets', 'models', 'stories260K');
/** Strings that occur in the own file and nowhere else. */
const MARKS = ['zyxwv', 'Quokkaville', 'plugh-7391'];

let server: WeftServer;
let wiretap: Wiretap;
let folder: string;

test.beforeAll(async () => {
  server = new WeftServer();
  await server.start();
  wiretap = new Wiretap(() => server.port);
  await wiretap.start();
  folder = mkdtempSync(join(tmpdir(), 'weft-own-'));
});

test.afterAll(async () => {
  await wiretap.stop();
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** Rows and tokens of a batch; the run's settings below. */
const SHAPE = { batch: 4, sequence: 48 };

/** The least GPU memory in MB that each rank takes, with the smallest micro-batches and recomputed activations. */
function leastMemory(): Map<number, number> {
  const config = parseModelConfig(readFileSync(join(MODEL_DIR, 'config.json'), 'utf8'));
  const question = { ranks: [...RANKS], alphaPerRank: 2, targets: PROJECTIONS, shape: SHAPE };
  return new Map(
    plannedMemory({ config }, question, { budget: 0 }).map(({ rank, memory }) => [rank, memory.total / 1e6]),
  );
}

/** Opens a tab whose memory limit lets it carry just this rank. */
async function openTab(
  browser: Browser,
  url: string,
  name: string,
  rank: number,
  task?: string,
): Promise<VolunteerTab> {
  const tab = await VolunteerTab.open(browser, url, { name, ...(task ? { task } : {}) });
  await tab.whenReady();
  await tab.setLimits({ 'GPU memory': (leastMemory().get(rank) ?? 0) + 0.06 });
  await expect(tab.page.getByTestId('rank').first()).toHaveText(new RegExp(`\\b${rank}$`));
  return tab;
}

/** The committed rounds, as the run's events tell them. */
async function committedRounds(runId: string): Promise<RoundRecord[]> {
  const lines = (await (await server.get(ROUTES.events(runId))).text()).trimEnd().split('\n');
  const events = lines.map((line) => JSON.parse(line) as { type: string; record?: unknown });
  return events.filter(({ type }) => type === 'committed').map(({ record }) => roundRecordSchema.parse(record));
}

const committedRow = (page: Page, round: number) =>
  page.locator(`[data-testid="round-row"][data-round="${round}"][data-outcome="committed"]`);

test('four ranks, three tasks, an own file, three rounds', async ({ browser }) => {
  test.setTimeout(540_000);
  const adminContext = await browser.newContext();
  const admin = await adminContext.newPage();
  await signIn(admin, server);
  await createRun(admin, {
    fields: {
      Name: 'rank-mix',
      'Run by': 'the test',
      Purpose: 'Help teach a small model to answer in a word.',
      Ranks: RANKS.join(', '),
      Rounds: '3',
      Goal: '4',
      Minimum: '3',
      // Long enough that "in mid-round" is there to be caught.
      'Steps a round': '16',
      Batch: String(SHAPE.batch),
      Sequence: String(SHAPE.sequence),
      'Learning rate': '0.004',
    },
    tasks: ['country continent', 'trash or treasure', 'travel'],
    ticks: ['Merge fewer than 5 uploads even with own files'],
  });
  await admin.getByRole('button', { name: 'Start', exact: true }).click();
  await expect(admin.getByTestId('phase')).toHaveAttribute('data-phase', 'selecting');

  const ownFile = join(folder, 'own.jsonl');
  const rows = MARKS.map((mark) =>
    JSON.stringify({ prompt: `Who lives in ${mark}?\nAnswer:`, completion: `${mark} people` }),
  );
  writeFileSync(ownFile, `${rows.join('\n')}\n`);

  const [sixteen, eight, four, own] = await Promise.all([
    openTab(browser, server.url, 'sixteen', 16, 'country-continent'),
    openTab(browser, server.url, 'eight', 8, 'trash-or-treasure'),
    openTab(browser, server.url, 'four', 4, 'travel'),
    openTab(browser, wiretap.url, 'own', 2),
  ]);
  await own.page.getByLabel('my own file').check();
  await own.page.getByLabel('File of JSON lines').setInputFiles(ownFile);
  await expect(own.page.getByTestId('file-result')).toContainText('3 rows');
  await own.page.getByRole('button', { name: 'Start helping' }).click();
  await expect(own.page.getByText('Your agreement is needed')).toBeVisible();
  await own.page.getByLabel(/I may use this text/).check();
  await Promise.all([sixteen, eight, four, own].map((tab) => tab.start()));

  // Round 1: all four. While it trains, one of them allows more memory, and so a larger rank, for the next round.
  await expect(four.page.getByTestId('status')).toContainText('step', { timeout: 120_000 });
  await four.setLimits({ 'GPU memory': null, 'Largest rank': 8 });
  await expect(committedRow(admin, 1)).toBeVisible({ timeout: 180_000 });

  // Round 2: the server dies while the tabs train, and comes back on the same data.
  await expect(admin.getByTestId('phase')).toHaveAttribute('data-phase', 'training', { timeout: 60_000 });
  await server.kill();
  await expect(admin.getByText(/server does not answer|reconnecting|trying again/i).first()).toBeVisible({
    timeout: 30_000,
  });
  await server.start();
  await expect(committedRow(admin, 2)).toBeVisible({ timeout: 180_000 });

  // Round 3: one tab goes away in mid-round; the round commits with three.
  await expect(eight.page.getByTestId('status')).toContainText('step', { timeout: 120_000 });
  await eight.close();
  const closedAt = Date.now();
  await expect(committedRow(admin, 3)).toBeVisible({ timeout: 60_000 });
  expect(Date.now() - closedAt).toBeLessThan(40_000);
  await expect(admin.getByTestId('outcome')).toContainText('Committed 3 rounds');

  const { runs } = z.object({ runs: z.array(runViewSchema) }).parse(await (await server.get(ROUTES.runs)).json());
  const runId = runs[0]?.runId ?? '';
  const records = await committedRounds(runId);
  expect(records.map(({ round }) => round)).toEqual([1, 2, 3]);
  const [first, second, third] = records;
  const ranksOf = (record: RoundRecord | undefined) =>
    record?.contributions.map(({ rank }) => rank).sort((a, b) => a - b);
  expect(ranksOf(first)).toEqual([2, 4, 8, 16]);
  expect(ranksOf(second)).toEqual([2, 8, 8, 16]);
  expect(third?.contributions).toHaveLength(3);
  expect(new Set(first?.contributions.map(({ task }) => task)).size).toBe(4);
  const changed = first?.contributions.find(({ task }) => task === 'travel')?.clientId;
  expect(second?.contributions.find(({ clientId }) => clientId === changed)?.rank).toBe(8);
  // Uploads grow with rank, and every round starts from what the one before it committed.
  const bytes = [...(first?.contributions ?? [])].sort((a, b) => a.rank - b.rank).map(({ uploadBytes }) => uploadBytes);
  expect(bytes.every((size, i) => i === 0 || size > (bytes[i - 1] ?? 0))).toBe(true);
  expect(records.map(({ contributions }) => new Set(contributions.map(({ startVersion }) => startVersion)))).toEqual([
    new Set([0]),
    new Set([1]),
    new Set([2]),
  ]);

  // The result is a PEFT adapter that reads back at the largest rank.
  const file = async (name: string) =>
    new Uint8Array(await (await server.get(ROUTES.adapter(runId, name))).arrayBuffer());
  const adapter = readAdapter({
    config: new TextDecoder().decode(await file('adapter_config.json')),
    weights: await file('adapter_model.safetensors'),
  });
  expect(new Set([...adapter.matrices.values()].map(({ rank }) => rank))).toEqual(new Set([16]));

  // The own file took part, and not a word of it crossed the wire.
  expect(third?.contributions.some(({ task }) => task === null)).toBe(true);
  const { requests, messages } = wiretap.sent();
  expect(messages.includes('upload:begin'), 'the tap sees messages').toBe(true);
  expect(messages.length).toBeGreaterThan(first?.contributions.find(({ rank }) => rank === 2)?.uploadBytes ?? 0);
  for (const mark of MARKS) {
    expect(requests.includes(mark), mark).toBe(false);
    expect(messages.includes(mark), mark).toBe(false);
  }
  for (const tab of [sixteen, four, own]) await tab.close();
  await adminContext.close();
});
