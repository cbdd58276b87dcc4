// Steering runs from the dashboard: reasons that stand with the round, questions before work is lost, more time, a buffered
// run made in the form and trained to its end, alerts, and a table of more devices than a snapshot carries.
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, type Locator, type Page, test } from '@playwright/test';
import { VolunteerTab } from '@weft/e2e/fleet';
import { expectAccessible } from './support/accessible.ts';
import { createRun, signIn } from './support/admin-page.ts';
import { WeftServer } from './support/weft-server.ts';

test.describe.configure({ mode: 'serial' });

const weft = join(import.meta.dirname, '..', '..', 'apps', 'cli', 'dist', 'weft.js');
let server: WeftServer;

test.beforeAll(async () => {
  server = new WeftServer();
  await server.start();
});

test.afterAll(async () => {
  await server.stop();
});

const FIELDS = {
  'Run by': 'the test',
  Purpose: 'Test what steers a run.',
  Ranks: '2',
  Goal: '3',
  Minimum: '3',
  'Steps a round': '3',
  Batch: '2',
  Sequence: '32',
};

/** Opens the dialog of a command. */
async function asked(page: Page, button: string): Promise<Locator> {
  await page.getByRole('button', { name: button, exact: true }).click();
  const dialog = page.getByRole('dialog');
  await expect(dialog).toBeVisible();
  return dialog;
}

test('extend, abort, close, pause and stop, each with a reason', async ({ page }) => {
  await signIn(page, server);
  await createRun(page, { fields: { ...FIELDS, Name: 'steered', Rounds: '5' }, tasks: ['Travel'] });
  for (const name of ['Pause', 'Resume']) await expect(page.getByRole('button', { name, exact: true })).toHaveCount(0);
  await expect(page.getByRole('button', { name: 'Extend', exact: true })).toBeDisabled();
  await page.getByRole('button', { name: 'Start', exact: true }).click();
  await expect(page.getByTestId('run-state')).toHaveText('running');
  const reason = page.getByTestId('round-reason');

  const extend = await asked(page, 'Extend');
  await expectAccessible(page, 'the dialog of Extend');
  await extend.getByLabel('Minutes').fill('soon');
  await extend.getByLabel('Reason').fill('the bus is late');
  // Enter does what the dialog offers, where nothing is lost by it.
  await page.keyboard.press('Enter');
  await expect(extend.getByText('A number of minutes is needed here')).toBeVisible();
  await expect(extend.getByLabel('Minutes')).toBeFocused();
  await extend.getByLabel('Minutes').fill('60');
  await page.keyboard.press('Enter');
  await expect(extend).toBeHidden();
  await expect(page.getByRole('button', { name: 'Extend', exact: true })).toBeFocused();
  await expect(reason).toContainText('The operator gave the round 3600 s more: the bus is late.');
  await expect(page.locator('.clock')).toHaveText(/^1:0\d:\d\d left$/);

  const abort = await asked(page, 'Abort round');
  await abort.getByLabel('Reason').fill('wrong tasks');
  // Enter keeps the round, and what was typed.
  await page.keyboard.press('Enter');
  await expect(abort).toBeHidden();
  await expect(page.getByTestId('round-row')).toHaveCount(0);
  await asked(page, 'Abort round');
  await expect(abort.getByLabel('Reason')).toHaveValue('wrong tasks');
  await abort.getByRole('button', { name: 'Abort the round' }).click();
  const first = page.locator('[data-testid="round-row"][data-round="1"]');
  await expect(first).toHaveAttribute('data-outcome', 'abandoned');
  await expect(first.getByTestId('round-outcome')).toHaveText('The operator abandoned the round: wrong tasks.');

  await expect(page.getByTestId('round')).toHaveText('Round 2', { timeout: 60_000 });
  const close = await asked(page, 'Close round');
  await close.getByLabel('Reason').fill('nobody will come');
  await close.getByRole('button', { name: 'Close the round' }).click();
  await expect(page.locator('[data-testid="round-row"][data-round="2"]').getByTestId('round-outcome')).toContainText(
    'Selection ended with 0 volunteers; 3 are needed.',
  );

  await expect(page.getByTestId('round')).toHaveText('Round 3', { timeout: 60_000 });
  const pause = await asked(page, 'Pause');
  await page.keyboard.press('Escape');
  await expect(pause).toBeHidden();
  await expect(page.getByTestId('run-state')).toHaveText('running');
  await asked(page, 'Pause');
  await pause.getByLabel('Reason').fill('lunch');
  await pause.getByRole('button', { name: 'Pause the run' }).click();
  await expect(page.getByTestId('run-state')).toHaveText('paused');
  await expect(reason).toContainText('The operator paused the run: lunch.');
  await expect(page.getByRole('button', { name: 'Resume', exact: true })).toBeVisible();

  const stop = await asked(page, 'Stop');
  await expectAccessible(page, 'the dialog of Stop');
  await stop.getByLabel('Reason').fill('the term is over');
  await stop.getByRole('button', { name: 'Stop the run' }).click();
  await expect(page.getByTestId('outcome')).toContainText('Stopped after 0 committed rounds (the term is over)');
  await expect(page.getByRole('button', { name: 'Stop', exact: true })).toHaveCount(0);
});

test('a buffered run from the form: refused where the strategy cannot, else trained to its end', async ({
  page,
  browser,
}) => {
  await signIn(page, server);
  await page.getByRole('link', { name: 'New run' }).click();
  const form = page.getByRole('form', { name: 'New run' });
  await expect(form.getByLabel('Devices at once')).toHaveCount(0);
  await form.getByLabel('How rounds follow each other').selectOption('buffered');
  await expect(form.getByLabel('Selection ends after')).toHaveCount(0);
  await form.getByLabel('Devices at once').fill('4');
  await form.getByLabel('Merging', { exact: true }).selectOption('fedit');
  await form.getByLabel('Name').fill('buffered');
  for (const [label, value] of Object.entries({ ...FIELDS, Rounds: '2' })) {
    await form.getByLabel(label, { exact: true }).fill(value);
  }
  await form.getByRole('button', { name: 'Create run' }).click();
  await expect(form.getByText('fedit merges no work that started from an older version')).toBeVisible();
  await expect(form.getByLabel('How rounds follow each other')).toBeFocused();
  await expectAccessible(page, 'a form for a buffered run that is refused');
  await form.getByLabel('Merging', { exact: true }).selectOption('flexlora-carry');
  await createRun(page, { fields: {}, tasks: ['Travel'] });

  await page.getByRole('button', { name: 'Start', exact: true }).click();
  await expect(page.locator('[data-stage="training"]')).toHaveText('training, 0 of 3 in the buffer');
  await expect(page.locator('[data-stage]')).toHaveCount(3);
  await expectAccessible(page, 'a buffered run');
  const runId = /#run=(.+)$/.exec(page.url())?.[1] ?? '';
  const alert = page.getByTestId('alert');
  for (const round of [1, 2, 3]) {
    await expect(page.getByTestId('round')).toHaveText(`Round ${round}`, { timeout: 60_000 });
    await asked(page, 'Close round');
    await page.getByRole('button', { name: 'Close the round' }).click();
    await expect(page.locator(`[data-testid="round-row"][data-round="${round}"]`)).toBeVisible();
  }
  await expect(alert.filter({ hasText: 'buffered' })).toContainText('Rounds come to nothing in buffered');
  await expectAccessible(page, 'an alert');
  const tabs = await Promise.all(
    ['ada', 'bo', 'cy'].map((name) => VolunteerTab.open(browser, `${server.url}/?run=${runId}`, { name, maxRank: 2 })),
  );
  await Promise.all(tabs.map((tab) => tab.whenReady()));
  await Promise.all(tabs.map((tab) => tab.start()));
  await expect(page.getByTestId('outcome')).toContainText('Committed 2 rounds', { timeout: 200_000 });
  const row = page.locator('[data-testid="round-row"][data-outcome="committed"]').last();
  await expect(alert.filter({ hasText: 'buffered' })).toHaveCount(0);
  await expect(row.getByTestId('round-outcome')).toContainText('Merged 3 uploads');
  await page.getByText('Settings of this run').click();
  await expect(page.getByText('2, buffered: goal 3, minimum 3, 4 devices at once')).toBeVisible();
  for (const tab of tabs) await tab.close();
});

test('more devices than a snapshot carries, and what the start found', async ({ page }) => {
  await server.kill();
  writeFileSync(join(server.dataDir, 'stray.0badcafe.tmp'), 'half');
  await server.start();
  await signIn(page, server);
  await page.getByText('The last start repaired files').click();
  await expect(page.getByTestId('findings')).toContainText('It found 1 half-written file in the data folder.');

  await page.getByRole('link', { name: 'New run' }).click();
  const fields = { ...FIELDS, Name: 'crowded', Rounds: '50', Goal: '200', Minimum: '200' };
  await createRun(page, { fields, tasks: ['Travel'] });
  await page.getByRole('button', { name: 'Start', exact: true }).click();
  const runId = /#run=(.+)$/.exec(page.url())?.[1] ?? '';
  const args = [weft, 'load', server.url, '--run', runId, '--volunteers', '230', '--think', '600', '--seconds', '60'];
  const crowd = spawn(process.execPath, args, { stdio: 'ignore' });
  try {
    const rows = page.getByTestId('client');
    await expect(page.getByTestId('device-count')).toHaveText('Rows 1 to 100 of 230 devices', { timeout: 60_000 });
    await expect(rows).toHaveCount(100);
    await expectAccessible(page, 'a crowded run');
    const seen = await rows.first().getAttribute('data-client');
    await page.getByRole('button', { name: 'Further rows' }).click();
    await page.getByRole('button', { name: 'Further rows' }).click();
    await expect(page.getByTestId('device-count')).toHaveText('Rows 201 to 230 of 230 devices');
    await expect(rows).toHaveCount(30);
    await expect(page.getByRole('button', { name: 'Further rows' })).toBeDisabled();
    // A search looks at those that are on no page here, and begins at its first row.
    await page.getByLabel('Filter devices').fill(seen ?? '');
    await expect(page.getByTestId('device-count')).toHaveText('Rows 1 to 1 of 1 that match, of 230 devices');
    await page.getByLabel('Filter devices').fill('nothing like it');
    await expect(page.getByText('No device matches “nothing like it”.')).toBeVisible();
    await page.getByLabel('Filter devices').fill('');
    const training = page.getByRole('group', { name: 'Devices by state' }).getByRole('button', { name: /training$/ });
    await training.click();
    await expect(training).toHaveAttribute('aria-pressed', 'true');
    await expect
      .poll(() => rows.evaluateAll((all) => [...new Set(all.map((row) => row.getAttribute('data-state')))]))
      .toEqual(['training']);
  } finally {
    crowd.kill('SIGINT');
  }
});
