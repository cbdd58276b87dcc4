// Who may do what, in a browser: signing in with accounts, what each role may press, and volunteers who come by invite.
import { expect, type Page, test } from '@playwright/test';
import { expectAccessible } from './support/accessible.ts';
import { createRun, signIn } from './support/admin-page.ts';
import { WeftServer } from './support/weft-server.ts';

test.describe.configure({ mode: 'serial' });

const PASSWORD = 'correct horse battery';
let server: WeftServer;

test.beforeAll(async () => {
  server = new WeftServer();
  await server.start();
});

test.afterAll(async () => {
  await server.stop();
});

async function signInAs(page: Page, name: string, password = PASSWORD): Promise<void> {
  await page.goto(`${server.url}/admin`);
  await page.getByLabel('Somebody with an account').check();
  await page.getByLabel('Account name').fill(name);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

test('an owner makes accounts, sees who is signed in, and ends a session', async ({ page, browser }) => {
  await signIn(page, server);
  await expect(page.getByTestId('who')).toHaveText('Signed in as admin, owner');
  await page.getByRole('link', { name: 'Accounts' }).click();
  const form = page.getByRole('form', { name: 'New account' });
  await form.getByLabel('Name').fill('vera');
  await form.getByLabel('Password').fill('short');
  await form.getByRole('button', { name: 'Add account' }).click();
  await expect(form.getByText('It must have at least 10 characters.')).toBeVisible();
  await expect(form.getByLabel('Password')).toBeFocused();
  await expectAccessible(page, 'new account with a mistake');
  for (const [name, role] of [
    ['vera', 'viewer'],
    ['anna', 'operator'],
  ] as const) {
    await form.getByLabel('Name').fill(name);
    await form.getByLabel('Password').fill(PASSWORD);
    await form.getByLabel('Role').selectOption(role);
    await form.getByRole('button', { name: 'Add account' }).click();
    await expect(page.locator(`[data-testid="account"][data-account="${name}"]`)).toBeVisible();
  }

  const context = await browser.newContext();
  const anna = await context.newPage();
  await signInAs(anna, 'anna', 'not the password');
  await expect(anna.getByTestId('problem')).toContainText('Name or password is wrong');
  await expectAccessible(anna, 'sign-in with an account, refused');
  await anna.getByLabel('Password').fill(PASSWORD);
  await anna.getByRole('button', { name: 'Sign in' }).click();
  await expect(anna.getByTestId('who')).toHaveText('Signed in as anna, operator');
  await expect(anna.getByRole('link', { name: 'Accounts' })).toHaveCount(0);

  await page.reload();
  await expect(page.getByTestId('session')).toContainText('anna');
  await expectAccessible(page, 'accounts and sessions');
  await page.getByRole('button', { name: 'Sign anna out' }).click();
  await expect(anna.getByRole('heading', { name: 'Sign in to the dashboard' })).toBeVisible();
  await context.close();
});

test('a viewer sees and may press nothing, with the reason; signing out ends the session', async ({ page }) => {
  const owner = await page.context().newPage();
  await signIn(owner, server);
  await createRun(owner, {
    fields: { Name: 'to be watched', 'Run by': 'the test', Purpose: 'Test roles.', Ranks: '2, 4' },
    tasks: ['Travel'],
  });
  await owner.close();
  await signInAs(page, 'vera');
  await expect(page.getByTestId('who')).toHaveText('Signed in as vera, viewer');
  await expect(page.getByRole('button', { name: 'Start', exact: true })).toBeDisabled();
  await expect(page.getByRole('button', { name: 'Stop', exact: true })).toBeDisabled();
  await expect(page.getByText('This takes the role operator; yours is viewer.').first()).toBeVisible();
  await expect(page.getByRole('link', { name: 'New run' })).toHaveCount(0);
  await expectAccessible(page, 'a viewer’s run');
  const token = await page.evaluate(() => sessionStorage.getItem('weft-admin-token'));
  await page.getByRole('button', { name: 'Sign out' }).click();
  await expect(page.getByRole('heading', { name: 'Sign in to the dashboard' })).toBeVisible();
  await expect
    .poll(
      async () => (await fetch(`${server.url}/api/sessions`, { headers: { authorization: `Bearer ${token}` } })).status,
    )
    .toBe(401);
});

test('an invited run: the invite is made, carried by the page, and taken back', async ({ page, browser }) => {
  await signIn(page, server);
  const form = page.getByRole('form', { name: 'New run' });
  await page.getByRole('link', { name: 'New run' }).click();
  await form.getByLabel('Who may take part').selectOption('invited');
  await createRun(page, {
    fields: { Name: 'by invite', 'Run by': 'the test', Purpose: 'Test invites.', Ranks: '2, 4' },
    tasks: ['Travel'],
  });
  const runId = /#run=(.+)$/.exec(page.url())?.[1] ?? '';
  const invites = page.getByRole('region', { name: 'Invites' }).first();
  await expect(invites).toBeVisible();
  await invites.getByLabel('Volunteers').fill('none');
  await expect(invites.getByText('A whole number from 1')).toBeVisible();
  await invites.getByLabel('Volunteers').fill('1');
  await invites.getByLabel('For whom').fill('the course');
  await invites.getByRole('button', { name: 'Make invite' }).click();
  const link = (await page.getByTestId('invite-link').locator('pre').textContent()) ?? '';
  expect(link).toContain(`/?run=${runId}#invite=`);
  await expectAccessible(page, 'an invite just made');

  const context = await browser.newContext();
  const volunteer = await context.newPage();
  await volunteer.goto(`${server.url}/?run=${runId}`);
  await expect(volunteer.getByTestId('problem').first()).toContainText('invited volunteers only', { timeout: 60_000 });
  await expectAccessible(volunteer, 'no invite');
  await volunteer.goto('about:blank');
  await volunteer.goto(link.replace(/^https?:\/\/[^/]+/, server.url));
  await expect(volunteer.getByRole('button', { name: 'Start helping' })).toBeEnabled({ timeout: 60_000 });
  expect(new URL(volunteer.url()).hash).toBe('');
  // Another visit, by the plain address, in the same browser.
  await volunteer.goto('about:blank');
  await volunteer.goto(`${server.url}/?run=${runId}`);
  await expect(volunteer.getByRole('button', { name: 'Start helping' })).toBeEnabled({ timeout: 60_000 });
  await context.close();

  const late = await browser.newContext();
  const second = await late.newPage();
  await second.goto(link.replace(/^https?:\/\/[^/]+/, server.url));
  await expect(second.getByTestId('problem').first()).toContainText('has let in 1 volunteer', { timeout: 60_000 });
  await late.close();

  await page.reload();
  const row = page.getByTestId('invite').filter({ hasText: 'the course' });
  await expect(row).toContainText('1 of 1');
  await row.getByRole('button', { name: 'Take back' }).click();
  await expect(row).toHaveAttribute('data-state', 'taken back');
});
