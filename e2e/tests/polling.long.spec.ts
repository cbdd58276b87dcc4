// A whole job over long polling: every client sits behind a proxy that knows no WebSocket. Two tabs and a `weft join` carry two
// rounds from the first page load to the download of the adapter, dashboard included.
import { readFileSync } from 'node:fs';
import { expect, test } from '@playwright/test';
import { VolunteerTab } from '@weft/e2e/fleet';
import { z } from 'zod';
import { createRun, signIn } from './support/admin-page.ts';
import { OldProxy } from './support/old-proxy.ts';
import { WeftJoin } from './support/weft-join.ts';
import { WeftServer } from './support/weft-server.ts';

let server: WeftServer;
let proxy: OldProxy;

test.beforeAll(async () => {
  server = new WeftServer();
  await server.start();
  proxy = new OldProxy(() => server.port);
  await proxy.start();
});

test.afterAll(async () => {
  await proxy.stop();
  await server.stop();
});

test('a job from page load to adapter without WebSocket', async ({ browser }) => {
  const admin = await browser.newPage();
  await signIn(admin, { url: proxy.url, token: server.token });
  await createRun(admin, {
    fields: {
      Name: 'behind a proxy',
      'Run by': 'the test',
      Purpose: 'Help teach a small model to answer in a word.',
      Ranks: '2, 8, 32',
      Rounds: '2',
      Goal: '3',
      Minimum: '3',
      'Steps a round': '8',
      Batch: '2',
      Sequence: '32',
    },
    tasks: ['country continent', 'travel'],
  });
  await admin.getByRole('button', { name: 'Start', exact: true }).click();
  const node = new WeftJoin(proxy.url, ['--name', 'node', '--max-rank', '8', '--rounds', '2']);
  try {
    const tabs = await Promise.all([
      VolunteerTab.open(browser, proxy.url, { name: 'large', maxRank: 32 }),
      VolunteerTab.open(browser, proxy.url, { name: 'small', maxRank: 2 }),
    ]);
    await Promise.all(tabs.map((tab) => tab.whenReady()));
    await Promise.all(tabs.map((tab) => tab.start()));
    for (const round of [1, 2]) {
      const row = admin.locator(`[data-testid="round-row"][data-round="${round}"][data-outcome="committed"]`);
      await expect(row).toBeVisible({ timeout: 120_000 });
    }
    await expect(admin.getByTestId('outcome')).toContainText('Committed 2 rounds');
    for (const tab of tabs) await expect(tab.page.getByTestId('totals')).toContainText('2 rounds helped');
    const { rounds } = z.object({ rounds: z.array(z.object({ uploadBytes: z.number() })) }).parse(await node.done);
    expect(rounds).toHaveLength(2);

    const downloading = admin.waitForEvent('download');
    await admin.getByRole('button', { name: 'Download PEFT' }).click();
    const zip = readFileSync(await (await downloading).path());
    expect(zip.subarray(0, 4).toString('latin1'), 'a zip file').toBe('PK\u0003\u0004');
    expect(zip.includes('adapter_model.safetensors')).toBe(true);

    // Dashboard, two tabs and the command line each tried WebSocket, and went on without; uploads went by POST.
    expect(proxy.refused).toBeGreaterThanOrEqual(4);
    expect(proxy.polls.get).toBeGreaterThan(0);
    expect(proxy.polls.post).toBeGreaterThan(0);
    expect(proxy.polls.bytes).toBeGreaterThan(rounds.reduce((sum, { uploadBytes }) => sum + uploadBytes, 0));
    for (const tab of tabs) await tab.close();
  } finally {
    node.stop();
    await admin.context().close();
  }
});
