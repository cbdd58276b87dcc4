// Both pages for people who use a keyboard, a screen reader or dark colours: axe in the main states, light and dark, and the
// way from load to Start without a mouse. axe finds what a machine can find; the words and the order are for people to judge.
import { expect, type Locator, type Page, test } from '@playwright/test';
import { VolunteerTab } from '@weft/e2e/fleet';
import { expectAccessible } from './support/accessible.ts';
import { signIn } from './support/admin-page.ts';
import { WeftServer } from './support/weft-server.ts';

// One run serves all: made by keyboard, trained in, looked at.
test.describe.configure({ mode: 'serial' });

let server: WeftServer;

test.beforeAll(async () => {
  server = new WeftServer();
  await server.start();
});

test.afterAll(async () => {
  await server.stop();
});

/** Goes on by Tab alone until `goal` has the focus. Everything on the way must show that it is focused. */
async function tabTo(page: Page, goal: Locator): Promise<void> {
  await expect(goal).toBeVisible();
  for (let presses = 0; presses < 80; presses += 1) {
    await page.keyboard.press('Tab');
    const focus = await page.evaluate(() => {
      const { activeElement } = document;
      if (!activeElement || activeElement === document.body) return null;
      const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(activeElement);
      const ring = (outlineStyle !== 'none' && outlineWidth !== '0px') || boxShadow !== 'none';
      return { ring, html: activeElement.outerHTML.slice(0, 120) };
    });
    if (focus) expect(focus.ring, `focus is visible on ${focus.html}`).toBe(true);
    if (await goal.evaluate((element) => element === document.activeElement)) return;
  }
  throw new Error(`Tab never reached ${goal}.`);
}

/** Replaces the text of a field that Tab reaches. */
async function fillByKeyboard(page: Page, field: Locator, text: string): Promise<void> {
  await tabTo(page, field);
  await page.keyboard.press('ControlOrMeta+a');
  await page.keyboard.type(text);
}

test('the dashboard from sign-in to Start, by keyboard', async ({ page }) => {
  await page.goto(`${server.url}/admin`);
  await expect(page.getByRole('heading', { name: 'Sign in to the dashboard' })).toBeVisible();
  await expectAccessible(page, 'sign-in');
  await fillByKeyboard(page, page.getByLabel('Admin token'), 'wrong');
  await page.keyboard.press('Enter');
  await expect(page.getByTestId('problem')).toBeVisible();
  await expectAccessible(page, 'sign-in refused');
  await page.keyboard.press('Shift+Tab');
  await fillByKeyboard(page, page.getByLabel('Admin token'), server.token);
  await page.keyboard.press('Enter');

  await expect(page.getByRole('heading', { name: 'No run yet' })).toBeVisible();
  await expectAccessible(page, 'no run');
  await tabTo(page, page.getByRole('button', { name: 'Create the first run' }));
  await page.keyboard.press('Enter');

  const form = page.getByRole('form', { name: 'New run' });
  await expect(form).toBeVisible();
  await expectAccessible(page, 'new run');
  // Sent empty, the form names what is missing and puts the focus there.
  await tabTo(page, form.getByRole('button', { name: 'Create run' }));
  await page.keyboard.press('Enter');
  await expect(form.getByLabel('Name')).toBeFocused();
  await expectAccessible(page, 'new run with mistakes');
  await page.keyboard.type('by keyboard');
  const texts: [label: string, text: string][] = [
    ['Run by', 'the test'],
    ['Purpose', 'Help teach a small model to answer in a word.'],
    ['Ranks', '2, 4'],
    ['Rounds', '2'],
    ['Goal', '3'],
    ['Minimum', '3'],
    ['Steps a round', '3'],
    ['Batch', '2'],
    ['Sequence', '32'],
  ];
  for (const [label, text] of texts) await fillByKeyboard(page, form.getByLabel(label, { exact: true }), text);
  await tabTo(page, form.getByRole('button', { name: 'Create run' }));
  await page.keyboard.press('Enter');

  const start = page.getByRole('button', { name: 'Start', exact: true });
  await expect(start).toBeVisible();
  await expect(page.getByRole('img', { name: 'QR code of the invite link' })).toBeVisible();
  await expectAccessible(page, 'created run');
  await tabTo(page, start);
  await page.keyboard.press('Enter');
  await expect(page.getByTestId('run-state')).toHaveText('running');
});

test('the volunteer page from load to Start, by keyboard, and a round of it', async ({ page, browser }) => {
  // Two more make the round; they have no part in the checks.
  const others = await Promise.all(
    ['one', 'two'].map((name) => VolunteerTab.open(browser, server.url, { name, maxRank: 2 })),
  );
  await page.goto(server.url);
  const start = page.getByRole('button', { name: 'Start helping' });
  await expect(start).toBeEnabled({ timeout: 60_000 });
  await expectAccessible(page, 'ready');

  for (const name of ['what-for', 'why', 'see-all']) {
    await tabTo(page, page.getByTestId(name));
    await page.keyboard.press('Enter');
  }
  await tabTo(page, page.getByLabel('the run’s sample tasks'));
  await page.keyboard.press('ArrowDown');
  await expect(page.getByLabel('my own file')).toBeChecked();
  await tabTo(page, page.getByText('My limits', { exact: true }));
  await page.keyboard.press('Enter');
  await expect(page.getByRole('form', { name: 'My limits' })).toBeVisible();
  await expectAccessible(page, 'ready with everything open');
  await tabTo(page, start);
  await page.keyboard.press('Enter');
  await expect(page.getByText('Choose a file first.')).toBeVisible();
  await expect(page.getByLabel('File of JSON lines')).toBeFocused();
  await expectAccessible(page, 'a choice that is not complete');
  await page.keyboard.press('Shift+Tab');
  await page.keyboard.press('ArrowUp');
  await expect(page.getByLabel('the run’s sample tasks')).toBeChecked();
  await tabTo(page, start);
  await page.keyboard.press('Enter');

  const pause = page.getByRole('button', { name: 'Pause' });
  await expect(pause).toBeVisible();
  await expect(page.getByTestId('status')).toContainText('Waiting');
  await expectAccessible(page, 'waiting');
  await Promise.all(others.map((tab) => tab.whenReady()));
  await Promise.all(others.map((tab) => tab.start()));
  await expect(page.getByTestId('totals')).toContainText('1 round helped', { timeout: 120_000 });
  await tabTo(page, pause);
  await page.keyboard.press('Enter');
  await expect(page.getByRole('button', { name: 'Resume' })).toBeVisible();
  await expectAccessible(page, 'paused, with a loss curve and receipts');
  await page.keyboard.press('Enter');
  await expect(pause).toBeVisible();
  await expect(page.getByTestId('status')).toContainText('Committed 2 rounds', { timeout: 120_000 });
  await expectAccessible(page, 'finished');
  for (const tab of others) await tab.close();
});

test('the dashboard of a run with rounds, charts and devices', async ({ page }) => {
  await signIn(page, server);
  await expect(page.getByTestId('outcome')).toContainText('Committed 2 rounds');
  await expect(page.getByRole('img', { name: /Chart: Spectrum/ })).toBeVisible();
  await expectAccessible(page, 'completed run');
  // Each becomes "Chart" when pressed.
  const table = page.getByRole('button', { name: 'Table', exact: true });
  for (let left = 6; left > 0; left -= 1) {
    await expect(table).toHaveCount(left);
    await table.first().click();
  }
  await page.locator('[data-testid="round-row"] button').first().click();
  await page.getByText('Settings of this run').click();
  await expectAccessible(page, 'completed run, charts as tables');
});

test('reduced motion stills everything that moves', async ({ page }) => {
  await page.emulateMedia({ reducedMotion: 'reduce' });
  await page.goto(server.url);
  await expect(page.getByTestId('run-name')).toHaveText('by keyboard');
  const moving = await page.evaluate(
    () =>
      [...document.querySelectorAll('*')].filter((element) => {
        const { transitionDuration, animationDuration, animationName } = getComputedStyle(element);
        const lasts = (durations: string) => durations.split(',').some((each) => Number.parseFloat(each) > 0.01);
        return lasts(transitionDuration) || (animationName !== 'none' && lasts(animationDuration));
      }).length,
  );
  expect(moving).toBe(0);
});
