// A volunteer's rights, on its page: receipts as a file that proves itself, an update taken back, being forgotten; and the
// operator's bans on the dashboard, by keyboard where a keyboard is all there is.
import { readFileSync } from 'node:fs';
import { type Browser, expect, type Page, test } from '@playwright/test';
import { VolunteerTab } from '@weft/e2e/fleet';
import { isReceiptSigned, ROUTES, receiptKeySchema, receiptsFileSchema } from '@weft/protocol';
import { expectAccessible } from './support/accessible.ts';
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

async function openTab(browser: Browser, name: string): Promise<VolunteerTab> {
  const tab = await VolunteerTab.open(browser, server.url, { name, maxRank: 2 });
  await tab.whenReady();
  await tab.start();
  await expect(tab.page.getByTestId('assignment')).toBeVisible({ timeout: 60_000 });
  return tab;
}

const clientOf = async (admin: Page): Promise<string[]> =>
  Promise.all(
    (await admin.getByTestId('client').all()).map(async (row) => (await row.getAttribute('data-client')) ?? ''),
  );

test('receipts, taking back, a ban and its end, being forgotten', async ({ browser }) => {
  test.setTimeout(300_000);
  const admin = await (await browser.newContext()).newPage();
  await signIn(admin, server);
  await createRun(admin, {
    fields: {
      Name: 'rights',
      'Run by': 'the test',
      Purpose: 'Ask what volunteers may ask.',
      Ranks: '2, 4',
      Rounds: '2',
      Goal: '4',
      Minimum: '3',
      'Steps a round': '2',
      Batch: '2',
      Sequence: '32',
    },
    tasks: ['travel'],
  });
  await admin.getByRole('button', { name: 'Start', exact: true }).click();

  // The second and third hold the round open: they have their places and pause before they train.
  const ada = await openTab(browser, 'ada');
  const [adaId = ''] = await clientOf(admin);
  const [bo, cy] = [await openTab(browser, 'bo'), await openTab(browser, 'cy')];
  for (const tab of [bo, cy]) await tab.page.getByRole('button', { name: 'Pause' }).click();
  await ada.page.getByRole('button', { name: 'Finish this round' }).click();
  await admin.getByRole('button', { name: 'Close round' }).click();
  await admin.getByRole('button', { name: 'Close the round' }).click();

  const receipts = ada.page.getByTestId('see-receipts');
  await expect(receipts).toBeVisible({ timeout: 120_000 });
  await receipts.click();
  await expectAccessible(ada.page, 'receipts');
  const download = ada.page.waitForEvent('download');
  await ada.page.getByRole('button', { name: 'Download receipts' }).click();
  const file = await (await download).path();
  const kept = receiptsFileSchema.parse(JSON.parse(readFileSync(file, 'utf8'))).receipts;
  const key = receiptKeySchema.parse(await (await server.get(ROUTES.key)).json());
  expect(kept).toHaveLength(1);
  for (const { receipt, key: with_ } of kept) {
    expect(with_).toEqual(key);
    expect(await isReceiptSigned(receipt, key)).toBe(true);
    expect(receipt.clientId).toBe(adaId);
  }

  await ada.page.getByRole('button', { name: 'Take back the update of round 1' }).click();
  await expect(ada.page.getByTestId('totals')).toHaveText(/^0 rounds helped/);
  await expect(admin.locator(`[data-client="${adaId}"]`)).toContainText('Withdrawn by the volunteer');

  // The ban: asked about, with a reason, by keyboard alone; its device is told.
  const others = (await clientOf(admin)).filter((id) => id !== adaId);
  const row = admin.locator(`[data-client="${others[0]}"]`);
  await row.getByRole('button', { name: /^Ban / }).focus();
  await admin.keyboard.press('Enter');
  const dialog = admin.getByRole('dialog', { name: /^Ban .* from this server/ });
  await dialog.getByLabel('Reason').fill('sends noise');
  await expectAccessible(admin, 'the dialog of a ban');
  await dialog.getByRole('button', { name: 'Ban', exact: true }).focus();
  await admin.keyboard.press('Enter');
  await expect(row).toHaveAttribute('data-state', 'banned');
  await expect(row).toContainText('sends noise');
  await expect
    .poll(
      async () => {
        const shown = [bo, cy].map((tab) => tab.page.locator('[data-testid="problem"][data-code="banned"]').count());
        return (await Promise.all(shown)).reduce((sum, each) => sum + each, 0);
      },
      { timeout: 60_000 },
    )
    .toBe(1);
  await admin.getByRole('button', { name: '1 banned', exact: true }).click();
  await expect(admin.getByTestId('client')).toHaveCount(1);
  await expectAccessible(admin, 'a ban');
  await row.getByRole('button', { name: /^Unban / }).click();
  await expect(admin.getByTestId('bans')).toBeHidden();
  await admin.getByLabel('Filter devices').fill('');

  // Forgotten: asked first, told what stays, and gone from the dashboard and from this browser.
  await ada.page.getByRole('button', { name: 'Forget me' }).first().click();
  await expectAccessible(ada.page, 'the question before being forgotten');
  await ada.page.getByRole('dialog').getByRole('button', { name: 'Keep me' }).click();
  await expect(ada.page.getByTestId('forgotten')).toBeHidden();
  await ada.page.getByRole('button', { name: 'Forget me' }).first().click();
  await ada.page.getByRole('dialog').getByRole('button', { name: 'Forget me' }).click();
  await expect(ada.page.getByTestId('forgotten')).toContainText('merged', { timeout: 30_000 });
  await expectAccessible(ada.page, 'forgotten');
  await expect(admin.locator(`[data-client="${adaId}"]`)).toHaveCount(0);
  const left = await ada.page.evaluate(async () => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('weft');
    const files: string[] = [];
    for await (const name of folder.keys()) files.push(name);
    const count = (database: string, store: string): Promise<number> =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open(database);
        opening.onerror = () => reject(opening.error);
        opening.onsuccess = () => {
          const asked = opening.result.transaction(store).objectStore(store).count();
          asked.onsuccess = () => resolve(asked.result);
          asked.onerror = () => reject(asked.error);
        };
      });
    return { files, keys: await count('weft-keys', 'keys'), receipts: await count('weft-receipts', 'receipts') };
  });
  expect(left).toEqual({ files: [], keys: 0, receipts: 0 });
  await ada.page.getByRole('button', { name: 'Start afresh' }).click();
  await ada.whenReady();
  const now = (await clientOf(admin)).filter((id) => !others.includes(id));
  expect(now).not.toContain(adaId);
  for (const tab of [ada, bo, cy]) await tab.close();
});
