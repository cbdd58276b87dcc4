// Every state of both pages, reached as users reach it: a real server, real tabs, a real run.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@playwright/test';
import { VolunteerTab } from '@weft/e2e/fleet';
import { ROUTES } from '@weft/protocol';
import { createRun, signIn } from '../tests/support/admin-page.ts';
import { WeftServer } from '../tests/support/weft-server.ts';
import { COLUMN, LARGE, PHONE, picture } from './picture.ts';

const weft = join(import.meta.dirname, '..', '..', 'apps', 'cli', 'dist', 'weft.js');
const TASKS = ['country continent', 'trash or treasure', 'travel'];

let server: WeftServer;
let folder: string;
let evaluator: ChildProcess | null = null;

test.beforeAll(async () => {
  server = new WeftServer();
  await server.start();
  folder = mkdtempSync(join(tmpdir(), 'weft-screens-'));
});

test.afterAll(async () => {
  evaluator?.kill('SIGTERM');
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});

test('every state of both pages', async ({ browser }) => {
  const admin = await (await browser.newContext()).newPage();
  const visitor = await (await browser.newContext()).newPage();

  await visitor.goto(server.url);
  await expect(visitor.getByTestId('status')).not.toHaveText('');
  await picture(visitor, 'volunteer-no-run', COLUMN);
  await admin.goto(`${server.url}/admin`);
  await picture(admin, 'admin-sign-in', LARGE);
  await signIn(admin, server);
  await picture(admin, 'admin-no-run', LARGE);

  const run = {
    fields: {
      Name: 'short answers',
      'Run by': 'the Weft authors',
      Purpose: 'Help teach a small language model to answer in one or two words.',
      Ranks: '4, 8, 16',
      Rounds: '6',
      Goal: '3',
      Minimum: '3',
      'Steps a round': '8',
      Batch: '4',
      Sequence: '48',
      'Learning rate': '0.004',
    },
    tasks: TASKS,
  };
  await createRun(admin, run, async () => await picture(admin, 'admin-new-run', LARGE));
  await picture(admin, 'admin-created', LARGE);

  const insecure = await (await browser.newContext()).newPage();
  await insecure.goto(server.url.replace('localhost', 'volunteers.test'));
  await expect(insecure.getByTestId('problem').first()).toBeVisible();
  await picture(insecure, 'volunteer-insecure', COLUMN);
  await insecure.context().close();

  await admin.getByRole('button', { name: 'Start', exact: true }).click();
  const args = [
    weft,
    'join',
    server.url,
    '--evaluate',
    '--operator-token',
    server.token,
    '--state-dir',
    join(folder, 'evaluator'),
  ];
  evaluator = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });

  const open = async (name: string, maxRank: number, task: string) => {
    const tab = await VolunteerTab.open(browser, server.url, { name, maxRank, task });
    await tab.whenReady();
    // Setting the limits has opened them; most people never do.
    await tab.page.getByText('My limits', { exact: true }).click();
    return tab;
  };
  const [first, second, third] = [
    await open('first', 16, 'travel'),
    await open('second', 8, 'trash-or-treasure'),
    await open('third', 4, 'country-continent'),
  ];
  await picture(second.page, 'volunteer-ready', COLUMN);
  await picture(second.page, 'volunteer-ready-phone', PHONE);

  const badFile = join(folder, 'rows.jsonl');
  writeFileSync(badFile, '{"prompt": "2 + 2 =", "completion": "4"}\n{"prompt": "no completion"}\n');
  await third.page.getByLabel('my own file').check();
  await third.page.getByLabel('File of JSON lines').setInputFiles(badFile);
  await expect(third.page.getByTestId('file-result')).toContainText('Line 2');
  await picture(third.page, 'volunteer-bad-file', COLUMN);
  await third.page.getByLabel('the run’s sample tasks').check();
  await third.page.getByRole('combobox', { name: 'Sample task' }).selectOption('country-continent');

  await first.start();
  await expect(first.page.getByTestId('status')).toContainText(/wait/i);
  await picture(first.page, 'volunteer-waiting', COLUMN);
  await second.start();
  await third.start();

  const committed = (round: number) =>
    admin.locator(`[data-testid="round-row"][data-round="${round}"][data-outcome="committed"]`);
  const measured = async (version: number) => {
    const { runs } = (await (await server.get(ROUTES.runs)).json()) as { runs: { runId: string }[] };
    const events = await (await server.get(ROUTES.events(runs.at(-1)?.runId ?? ''))).text();
    return events.includes(`"type":"evaluated","version":${version}`);
  };
  await expect(committed(2)).toBeVisible({ timeout: 300_000 });
  await expect.poll(() => measured(2), { timeout: 300_000 }).toBe(true);
  await expect(first.page.getByTestId('status')).toContainText('step', { timeout: 120_000 });
  await picture(first.page, 'volunteer-training', COLUMN);
  await picture(admin, 'admin-running', { width: 1280, height: 1000 });
  await admin.getByRole('button', { name: 'Abort round', exact: true }).click();
  await admin.getByRole('dialog').getByLabel('Reason').fill('The wrong tasks were chosen');
  await picture(admin, 'admin-abort', LARGE);
  await admin.getByRole('button', { name: 'Keep the round' }).click();
  await second.page.getByRole('button', { name: 'Pause' }).click();
  await expect(second.page.getByRole('button', { name: 'Resume' })).toBeVisible();
  await picture(second.page, 'volunteer-paused', COLUMN);

  await server.kill();
  await expect(first.page.getByTestId('line')).not.toContainText('live', { timeout: 60_000 });
  await picture(first.page, 'volunteer-reconnecting', COLUMN);
  await server.start();
  await second.page.getByRole('button', { name: 'Resume' }).click();

  await expect(admin.getByTestId('outcome')).toContainText(/Committed 6 rounds; held-out loss/, { timeout: 400_000 });
  await expect(first.page.getByTestId('totals').first()).toContainText('helped');
  await picture(first.page, 'volunteer-finished', COLUMN);
  await picture(admin, 'admin-completed', { width: 1280, height: 1000 });

  await createRun(admin, { ...run, fields: { ...run.fields, Name: 'second thoughts' } });
  await admin.getByRole('button', { name: 'Start', exact: true }).click();
  await admin.getByRole('button', { name: 'Stop', exact: true }).click();
  await admin.getByRole('button', { name: 'Stop the run' }).click();
  await expect(admin.getByTestId('run-state')).toHaveText('stopped');
  await picture(admin, 'admin-stopped', LARGE);
  for (const tab of [first, second, third]) await tab.close();
});

test('no GPU adapter', async ({ playwright }) => {
  const executablePath = process.env.WEFT_BROWSER;
  const root = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
  const browser = await playwright.chromium.launch({
    ...(executablePath ? { executablePath } : { channel: 'chromium' }),
    args: ['--disable-gpu', '--disable-software-rasterizer', '--disable-background-networking', ...root],
  });
  const page = await browser.newPage();
  await page.goto(server.url);
  await expect(page.getByTestId('problem').first()).toBeVisible();
  await picture(page, 'volunteer-no-adapter', COLUMN);
  await browser.close();
});
