// Ten kills in a row, one a round, with real tabs: the server dies by turns while they train and while an upload is on its way,
// and comes back on its data. Every round commits with all three, and nothing that was acknowledged is missing.
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, type Page, test } from '@playwright/test';
import { VolunteerTab } from '@weft/e2e/fleet';
import { ROUTES, roundRecordSchema, runViewSchema } from '@weft/protocol';
import { z } from 'zod';
import { createRun, signIn } from './support/admin-page.ts';
import { SlowRelay } from './support/slow-relay.ts';
import { WeftServer } from './support/weft-server.ts';

const KILLS = 10;
/** Slow enough for an upload of rank 32 (0.7 MB) to last some seconds. */
const UPLINK_BYTES_PER_SECOND = 300_000;

let server: WeftServer;
let relay: SlowRelay;

test.beforeAll(async () => {
  server = new WeftServer();
  await server.start();
  relay = new SlowRelay(() => server.port, UPLINK_BYTES_PER_SECOND);
  await relay.start();
});

test.afterAll(async () => {
  await relay.stop();
  await server.stop();
});

/** Bytes of uploads on their way, by file. */
function partialUploads(): Map<string, number> {
  const folder = join(server.dataDir, 'partial');
  const names = readdirSync(folder).filter((name) => name.endsWith('.part'));
  // A file may be renamed between the listing and the look.
  return new Map(names.map((name) => [name, statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0]));
}

const inTraining = async (round: number, { page }: VolunteerTab): Promise<void> => {
  await expect(page.getByTestId('assignment')).toHaveAttribute('data-round', String(round), { timeout: 90_000 });
  await expect(page.getByTestId('status')).toContainText(/step \d/, { timeout: 90_000 });
};

const inUpload = async (): Promise<void> => {
  await expect
    .poll(() => Math.max(0, ...partialUploads().values()), { timeout: 90_000, intervals: [20] })
    .toBeGreaterThan(0);
};

const uploadedSchema = z.object({ type: z.literal('uploaded'), sha256: z.string() });

test('ten kills in a row: every round commits, nothing acknowledged is lost', async ({ browser }) => {
  test.setTimeout(900_000);
  const adminContext = await browser.newContext();
  const admin: Page = await adminContext.newPage();
  await signIn(admin, server);
  await createRun(admin, {
    fields: {
      Name: 'ten lives',
      'Run by': 'the test',
      Purpose: 'Help teach a small model to answer in a word.',
      Ranks: '4, 16, 32',
      Rounds: String(KILLS),
      Goal: '3',
      Minimum: '3',
      'Steps a round': '12',
      Batch: '2',
      Sequence: '32',
    },
    tasks: ['country continent'],
  });
  await admin.getByRole('button', { name: 'Start', exact: true }).click();
  const tabs = await Promise.all(
    [32, 16, 4].map((maxRank) => VolunteerTab.open(browser, relay.url, { name: `rank ${maxRank}`, maxRank })),
  );
  const [largest] = tabs;
  if (!largest) throw new Error('Three tabs were opened.');
  await Promise.all(tabs.map((tab) => tab.whenReady()));
  await Promise.all(tabs.map((tab) => tab.start()));

  const times: string[] = [];
  for (let round = 1; round <= KILLS; round += 1) {
    const training = round % 2 === 1;
    await (training ? inTraining(round, largest) : inUpload());
    await server.kill();
    const killed = Date.now();
    if (!training) expect(Math.max(...partialUploads().values()), 'killed in mid-upload').toBeGreaterThan(0);
    await server.start();
    const served = Date.now();
    const row = admin.locator(`[data-testid="round-row"][data-round="${round}"][data-outcome="committed"]`);
    await expect(row).toBeVisible({ timeout: 120_000 });
    times.push(
      `${((served - killed) / 1000).toFixed(1)} s down, committed after ${Math.round((Date.now() - killed) / 1000)} s`,
    );
  }
  test.info().annotations.push({ type: 'kills', description: times.join('; ') });
  await expect(admin.getByTestId('outcome')).toContainText(`Committed ${KILLS} rounds`);
  for (const tab of tabs) {
    await expect(tab.page.getByTestId('totals')).toContainText(`${KILLS} rounds helped`, { timeout: 30_000 });
  }

  const { runs } = z.object({ runs: z.array(runViewSchema) }).parse(await (await server.get(ROUTES.runs)).json());
  const lines = (await (await server.get(ROUTES.events(runs[0]?.runId ?? ''))).text()).trimEnd().split('\n');
  const events = lines.map((line) => JSON.parse(line) as { type: string; record?: unknown });
  const records = events
    .filter(({ type }) => type === 'committed')
    .map(({ record }) => roundRecordSchema.parse(record));
  expect(new Set(records.map(({ round }) => round)).size).toBe(KILLS);
  for (const { contributions } of records) {
    expect(contributions).toHaveLength(3);
    expect(contributions.every(({ quarantined }) => quarantined === null)).toBe(true);
  }
  const merged = new Set(records.flatMap(({ contributions }) => contributions.map(({ sha256 }) => sha256)));
  const acknowledged = events.flatMap((event) => {
    const { success, data } = uploadedSchema.safeParse(event);
    return success ? [data.sha256] : [];
  });
  expect(acknowledged.length).toBeGreaterThan(2 * KILLS);
  expect(acknowledged.filter((sha256) => !merged.has(sha256))).toEqual([]);
  for (const tab of tabs) await tab.close();
  await adminContext.close();
});
