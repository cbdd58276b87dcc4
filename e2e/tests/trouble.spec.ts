// What goes wrong, as both pages meet it: each by its real condition, each named with its remedy and its code, and the
// server and the round go on. The same errors without a page are tested beside the packages that throw them.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Browser, chromium, expect, type Page, test } from '@playwright/test';
import { launchArguments, VolunteerTab } from '@weft/e2e/fleet';
import { PROTOCOL_VERSION, ROUTES } from '@weft/protocol';
import { createRun, signIn } from './support/admin-page.ts';
import { WeftServer } from './support/weft-server.ts';

let server: WeftServer;

test.beforeAll(async () => {
  server = new WeftServer();
  await server.start();
});

test.afterAll(async () => {
  await server.stop();
});

// Whatever a page ran into, the server must not have noticed more than the error it answered.
test.afterEach(async () => {
  expect((await server.get(ROUTES.health)).status).toBe(200);
});

/** A browser of its own, for conditions that a whole browser is in. */
async function withBrowser(args: readonly string[], use: (browser: Browser) => Promise<void>): Promise<void> {
  const executablePath = process.env.WEFT_BROWSER;
  const browser = await chromium.launch({
    ...(executablePath ? { executablePath } : { channel: 'chromium' }),
    args: [...args],
  });
  try {
    await use(browser);
  } finally {
    await browser.close();
  }
}

/** Runs `use` on a page in a context of its own. */
async function withPage(browser: Browser, use: (page: Page) => Promise<void>): Promise<void> {
  const context = await browser.newContext();
  try {
    await use(await context.newPage());
  } finally {
    await context.close();
  }
}

/** The page's note of a problem: its sentences in order, and its code under "details", where it can be copied. */
async function expectProblem(page: Page, code: string, ...sentences: readonly (string | RegExp)[]): Promise<void> {
  const problem = page.locator(`[data-testid="problem"][data-code="${code}"]`);
  await expect(problem).toBeVisible({ timeout: 60_000 });
  const words = problem.locator('p').first();
  for (const sentence of sentences) await expect(words).toContainText(sentence);
  await expect(words).not.toContainText(code);
  await problem.getByText('details', { exact: true }).click();
  await expect(problem.locator('pre')).toContainText(code);
  await expect(problem.getByRole('button', { name: 'Copy' })).toBeVisible();
}

/** Serves scripts whose path matches with one change; fails the test when nothing was there to change. */
async function serveChanged(page: Page, path: RegExp, change: (script: string) => string): Promise<() => void> {
  let changed = 0;
  await page.route(path, async (route) => {
    const response = await route.fetch();
    const before = await response.text();
    const after = change(before);
    if (after !== before) changed += 1;
    await route.fulfill({ response, body: after });
  });
  return () => expect(changed).toBe(1);
}

const WORKER = /\/assets\/main-[^/]*\.js$/;
const startButton = (page: Page) => page.getByRole('button', { name: 'Start helping' });

test.describe('before there is a run', () => {
  test('a browser without WebGPU', async ({ browser }) => {
    await withPage(browser, async (page) => {
      // No current Chromium can switch navigator.gpu off, so the worker takes it away before its first line.
      const wasServed = await serveChanged(page, WORKER, (script) => `delete WorkerNavigator.prototype.gpu;${script}`);
      await page.goto(server.url);
      await expectProblem(
        page,
        'no-webgpu',
        'This browser has no WebGPU.',
        'Use a current Chrome or Edge',
        'Nothing was downloaded and nothing was sent.',
      );
      wasServed();
      await expect(startButton(page)).toHaveCount(0);
    });
  });

  test('an insecure context: plain HTTP under another name', async () => {
    const args = [...launchArguments('software'), '--host-resolver-rules=MAP volunteers.test 127.0.0.1'];
    await withBrowser(args, async (browser) => {
      const page = await browser.newPage();
      await page.goto(`http://volunteers.test:${server.port}`);
      expect(await page.evaluate(() => isSecureContext)).toBe(false);
      await expectProblem(
        page,
        'insecure-context',
        'plain HTTP',
        'Open it over HTTPS, or on the server itself as http://localhost.',
        'Nothing was downloaded and nothing was sent.',
      );
      await expect(startButton(page)).toHaveCount(0);
    });
  });

  test('no GPU adapter', async () => {
    // Neither the machine's GPU nor the browser's own software.
    const args = launchArguments('software').filter((flag) => !flag.includes('webgpu'));
    await withBrowser([...args, '--disable-gpu', '--disable-software-rasterizer'], async (browser) => {
      const page = await browser.newPage();
      await page.goto(server.url);
      expect(await page.evaluate(() => navigator.gpu.requestAdapter())).toBeNull();
      await expectProblem(
        page,
        'no-adapter',
        'WebGPU found no GPU adapter.',
        'Update the graphics driver, or turn hardware acceleration on',
        'Nothing was downloaded and nothing was sent.',
      );
      await expect(page.getByRole('button', { name: 'Reload the page' })).toBeVisible();
    });
  });

  test('no run yet; the page goes on by itself once there is one', async ({ browser }) => {
    await withPage(browser, async (page) => {
      await page.goto(server.url);
      await expectProblem(page, 'unknown-run', 'The server has no run yet.', 'Trying again.');
      await expect(startButton(page)).toBeDisabled();
      await withPage(browser, async (admin) => {
        await signIn(admin, server);
        await expect(admin.getByRole('heading', { name: 'No run yet' })).toBeVisible();
        await createRun(admin, { fields: { ...SMALL, Name: 'first' }, tasks: ['country continent'] });
      });
      await expect(page.getByTestId('run-name')).toHaveText('first', { timeout: 40_000 });
      await expect(page.getByTestId('problem')).toHaveCount(0);
      await expect(startButton(page)).toBeEnabled({ timeout: 60_000 });
    });
  });

  test('a wrong token at the dashboard', async ({ page }) => {
    await page.goto(`${server.url}/admin`);
    await page.getByLabel('Admin token').fill('not-the-token');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await expectProblem(page, 'unauthorised', /token/i, 'Copy the token from the line the server printed');
    await expect(page.getByLabel('Admin token')).toBeVisible();
  });
});

/** A run that a software adapter gets through in seconds. */
const SMALL = {
  'Run by': 'the test',
  Purpose: 'Help teach a small model to answer in a word.',
  Ranks: '2',
  Rounds: '2',
  Goal: '3',
  Minimum: '3',
  'Steps a round': '3',
  Batch: '2',
  Sequence: '32',
};

test.describe('with a run', () => {
  let admin: Page;
  let folder: string;

  test.beforeAll(async ({ browser }) => {
    folder = mkdtempSync(join(tmpdir(), 'weft-trouble-'));
    admin = await browser.newPage();
    await signIn(admin, server);
    await createRun(admin, { fields: { ...SMALL, Name: 'quiet' }, tasks: ['country continent'] });
  });

  test.afterAll(async () => {
    await admin.context().close();
    rmSync(folder, { recursive: true, force: true });
  });

  test('a page of another protocol version', async ({ browser }) => {
    const older = (script: string) =>
      script.replace(`protocolVersion:${PROTOCOL_VERSION},`, `protocolVersion:${PROTOCOL_VERSION - 1},`);
    await withPage(browser, async (page) => {
      const wasServed = await serveChanged(page, WORKER, older);
      await page.goto(server.url);
      await expectProblem(
        page,
        'protocol-version',
        `You speak version ${PROTOCOL_VERSION - 1} of the protocol, the server version ${PROTOCOL_VERSION}.`,
        'Reload the page',
        'What was downloaded stays on this device.',
      );
      wasServed();
      await expect(startButton(page)).toBeDisabled();
      // What the sentence says is what helps: the server has the newer page.
      await page.unrouteAll();
      await page.getByRole('button', { name: 'Reload the page' }).click();
      await expect(page.getByTestId('run-name')).toHaveText('quiet');
    });
    await withPage(browser, async (page) => {
      const wasServed = await serveChanged(page, /\/assets\/admin-[^/]*\.js$/, older);
      await page.goto(`${server.url}/admin`);
      await page.getByLabel('Admin token').fill(server.token);
      await page.getByRole('button', { name: 'Sign in' }).click();
      await expectProblem(page, 'protocol-version', /speak version \d+ of the protocol/, 'Reload');
      wasServed();
    });
  });

  test('own files: a bad line, none at all, rows that are too long, and a run that cannot take one', async ({
    browser,
  }) => {
    const row = (prompt: string) => JSON.stringify({ prompt, completion: 'Africa' });
    const file = (name: string, lines: readonly string[]) => {
      const path = join(folder, name);
      writeFileSync(path, lines.join('\n'));
      return path;
    };
    const tab = await VolunteerTab.open(browser, server.url, { name: 'own' });
    await tab.whenReady();
    const { page } = tab;
    await page.getByLabel('my own file').check();
    const chosen = page.getByLabel('File of JSON lines');
    const result = page.getByTestId('file-result');

    await startButton(page).click();
    await expect(result).toHaveText('Choose a file first.');

    await chosen.setInputFiles(file('bad.jsonl', [row('a'), '', '{"prompt": "b"']));
    await expect(result).toContainText('Line 3 of your file: is not JSON.');
    await expect(result).toContainText('Each line is {"prompt": …, "completion": …}');
    await startButton(page).click();
    await expect(startButton(page)).toBeVisible();

    await chosen.setInputFiles(file('half.jsonl', [row('a'), '{"prompt": "b"}']));
    await expect(result).toContainText('Line 2 of your file: completion:');

    await chosen.setInputFiles(file('empty.jsonl', ['', '']));
    await expect(result).toContainText('There is no row in your file.');

    const long = row('Which continent is it on? '.repeat(20));
    await chosen.setInputFiles(file('long.jsonl', [row('a'), long, row('b'), long]));
    await expect(result).toContainText('4 rows. 2 are longer than the run’s sequence and will be cut.');

    // Three uploads are too few to hide a text of one's own among.
    await page.getByLabel(/I may use this text/).check();
    await startButton(page).click();
    await expectProblem(page, 'own-data-refused', 'This run merges 3 uploads at a time', 'Choose one of its tasks.');
    await page.getByLabel('the run’s sample tasks').check();
    await page.getByRole('button', { name: 'Start again' }).click();
    await expect(page.getByTestId('status')).toContainText('Waiting for the operator to start the run.');
    await tab.close();
  });

  test('a run that is paused, and a server that goes away and comes back', async ({ browser }) => {
    const tab = await VolunteerTab.open(browser, server.url, { name: 'patient' });
    await tab.whenReady();
    await tab.start();
    const status = tab.page.getByTestId('status');
    const line = tab.page.getByTestId('line');
    await expect(status).toContainText('Waiting for the operator to start the run.');
    await admin.getByRole('button', { name: 'Start', exact: true }).click();
    await expect(status).toContainText(/1 of 3|2 more/);
    await expect(line).toHaveText('live');

    await admin.getByRole('button', { name: 'Pause', exact: true }).click();
    await admin.getByRole('button', { name: 'Pause the run' }).click();
    await expect(status).toContainText('The operator has paused the run.');
    await expect(status).toContainText('you need not do anything');
    await expect(line).toHaveText('run paused');
    await admin.getByRole('button', { name: 'Resume', exact: true }).click();
    await expect(line).toHaveText('live');

    await server.kill();
    await expect(line).toHaveText('reconnecting');
    await expect(status).toContainText('Reconnecting to the server');
    await expectProblem(
      tab.page,
      'disconnected',
      'The connection to the server is down',
      'What was downloaded and trained is kept; trying again.',
    );
    await expect(admin.getByText('The server does not answer; trying again.')).toBeVisible();
    await server.start();
    await expect(line).toHaveText('live', { timeout: 40_000 });
    await expect(tab.page.getByTestId('problem')).toHaveCount(0);
    await expect(status).toContainText(/1 of 3|2 more/);
    await expect(admin.getByText('The server does not answer; trying again.')).toBeHidden({ timeout: 40_000 });
    await tab.close();
    await admin.getByRole('button', { name: 'Stop', exact: true }).click();
    await admin.getByRole('button', { name: 'Stop the run' }).click();
    await expect(admin.getByTestId('run-state')).toHaveText('stopped');
  });

  test('a GPU lost in mid-training: the lease goes back, a fresh device goes on, the round commits', async ({
    browser,
  }) => {
    // Steps enough for the others to train still when the fresh device has compiled: a round in which nobody trains ends.
    await createRun(admin, {
      fields: { ...SMALL, Name: 'shaky', Ranks: '2, 4', 'Steps a round': '300' },
      tasks: ['country continent'],
    });
    await admin.getByRole('button', { name: 'Start', exact: true }).click();
    const args = launchArguments('software');
    // Two browsers, since Chromium gives no adapter any more to one whose GPU process crashed twice.
    await withBrowser(args, async (large) => {
      await withBrowser(args, async (small) => {
        const tabs = await Promise.all([
          VolunteerTab.open(large, server.url, { name: 'large' }),
          VolunteerTab.open(small, server.url, { name: 'small', maxRank: 2 }),
          VolunteerTab.open(browser, server.url, { name: 'steady', maxRank: 2 }),
        ]);
        await Promise.all(tabs.map((tab) => tab.whenReady()));
        await Promise.all(tabs.map((tab) => tab.start()));
        const rounds = (outcome: string) => admin.locator(`[data-testid="round-row"][data-outcome="${outcome}"]`);
        const crashInTraining = async ({ page }: VolunteerTab, rank: number, inBrowser: Browser) => {
          await expect(page.getByTestId('assignment')).toHaveAttribute('data-rank', String(rank), { timeout: 60_000 });
          await expect(page.getByTestId('status')).toContainText(/step \d/, { timeout: 60_000 });
          const devtools = await inBrowser.newBrowserCDPSession();
          await devtools.send('Browser.crashGpuProcess');
        };

        // At rank 4 there is a smaller rank to try: the page goes on by itself, and the round with it.
        await crashInTraining(tabs[0], 4, large);
        await expect(tabs[0].page.getByTestId('note')).toContainText(
          'The GPU was lost at rank 4; the lease was given back. Going on with a fresh device at rank 2 or less.',
          { timeout: 30_000 },
        );
        await expect(admin.getByText('The GPU device was lost.').first()).toBeVisible();
        await expect(tabs[0].page.getByTestId('assignment')).toHaveAttribute('data-rank', '2', { timeout: 60_000 });
        await expect(rounds('committed')).toHaveCount(1, { timeout: 90_000 });

        // At the smallest rank the page stops, says why, and starts again when asked.
        await expect(tabs[1].page.getByTestId('assignment')).toHaveAttribute('data-round', '2', { timeout: 60_000 });
        await crashInTraining(tabs[1], 2, small);
        await expectProblem(
          tabs[1].page,
          'device-lost',
          'The GPU was lost at rank 2, and the run has no smaller rank.',
          'The lease was given back and the model is kept',
          'close other programs that use the GPU, then start again',
        );
        await tabs[1].page.getByRole('button', { name: 'Try again' }).click();
        await expect(tabs[1].page.getByTestId('problem')).toHaveCount(0);
        await expect(tabs[1].page.getByRole('button', { name: 'Pause' })).toBeVisible();
        await expect(admin.getByTestId('outcome')).toContainText('Committed 2 rounds', { timeout: 120_000 });
        await expect(tabs[1].page.getByTestId('totals')).toContainText('2 rounds helped', { timeout: 30_000 });
        for (const tab of tabs) await tab.close();
      });
    });
  });
});
