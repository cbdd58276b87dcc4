// HTTPS by the server itself: a run of one round over `weft serve --https`, dashboard, two tabs and `weft join`, all by secure
// WebSocket. The tabs take the self-signed certificate as a visitor does who goes on; `weft join` trusts the file it is in.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@playwright/test';
import { launchArguments, VolunteerTab } from '@weft/e2e/fleet';
import { type Browser, chromium } from 'playwright';
import { z } from 'zod';
import { createRun, signIn } from './support/admin-page.ts';
import { WeftJoin } from './support/weft-join.ts';
import { WeftServer } from './support/weft-server.ts';

let server: WeftServer;
let browser: Browser;
let folder: string;

test.beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'weft-https-'));
  server = new WeftServer({ args: ['--https'] });
  await server.start();
  const executablePath = process.env.WEFT_BROWSER;
  browser = await chromium.launch({
    ...(executablePath ? { executablePath } : { channel: 'chromium' }),
    // A worker's sockets do not know of Playwright's leave to ignore certificates.
    args: [...launchArguments('software'), '--ignore-certificate-errors'],
  });
});

test.afterAll(async () => {
  await browser.close();
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** The server's certificate as an operator hands it on: without the key that lies beside it. */
function certificate(): string {
  const { cert } = z
    .object({ cert: z.string() })
    .parse(JSON.parse(readFileSync(join(server.dataDir, 'tls.json'), 'utf8')));
  const path = join(folder, 'weft.pem');
  writeFileSync(path, cert);
  return path;
}

test('a whole run over the server’s own HTTPS: dashboard, tabs and the command line', async () => {
  expect(server.url).toMatch(/^https:/);
  const admin = await browser.newPage();
  const sockets: string[] = [];
  admin.on('websocket', (socket) => sockets.push(socket.url()));
  await signIn(admin, server);
  await createRun(admin, {
    fields: {
      Name: 'over https',
      'Run by': 'the test',
      Purpose: 'Help teach a small model to answer in a word.',
      Ranks: '2, 8',
      Rounds: '1',
      Goal: '3',
      Minimum: '3',
      'Steps a round': '4',
      Batch: '2',
      Sequence: '32',
    },
    tasks: ['country continent'],
  });
  await admin.getByRole('button', { name: 'Start', exact: true }).click();

  const node = new WeftJoin(server.url, ['--name', 'node', '--max-rank', '8', '--rounds', '1'], {
    NODE_EXTRA_CA_CERTS: certificate(),
  });
  try {
    const names = ['first', 'second'];
    const tabs = await Promise.all(names.map((name) => VolunteerTab.open(browser, server.url, { name, maxRank: 2 })));
    for (const { page } of tabs) expect(await page.evaluate(() => isSecureContext)).toBe(true);
    await Promise.all(tabs.map((tab) => tab.whenReady()));
    await Promise.all(tabs.map((tab) => tab.start()));
    const row = admin.locator('[data-testid="round-row"][data-round="1"][data-outcome="committed"]');
    await expect(row).toBeVisible({ timeout: 120_000 });
    await expect(admin.getByTestId('outcome')).toContainText('Committed 1 round');
    for (const tab of tabs) await expect(tab.page.getByTestId('totals')).toContainText('1 round helped');
    const { rounds } = z.object({ rounds: z.array(z.object({ uploadBytes: z.number() })) }).parse(await node.done);
    expect(rounds).toHaveLength(1);
    // Those of the tabs live in workers, where Playwright does not see them.
    expect(
      sockets.some((url) => url.startsWith('wss://')),
      sockets.join(),
    ).toBe(true);
    for (const tab of tabs) await tab.close();
  } finally {
    node.stop();
    await admin.context().close();
  }
});
