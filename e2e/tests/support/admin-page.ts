// The dashboard, used as an admin would.
import { expect, type Page } from '@playwright/test';
import type { WeftServer } from './weft-server.ts';

/** Text fields by label, tick boxes by label; what is left out keeps the form's default. */
export interface NewRun {
  readonly fields: Readonly<Record<string, string>>;
  readonly tasks: readonly string[];
  readonly ticks?: readonly string[];
}

export async function signIn(page: Page, server: Pick<WeftServer, 'url' | 'token'>): Promise<void> {
  await page.goto(`${server.url}/admin`);
  await page.getByLabel('Admin token').fill(server.token);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await expect(page.getByRole('heading', { name: 'Sign in to the dashboard' })).toBeHidden();
}

/** Fills the form for a new run, tells that it is filled, and creates the run; its page is open afterwards. */
export async function createRun(
  page: Page,
  { fields, tasks, ticks = [] }: NewRun,
  whenFilled: () => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  const form = page.getByRole('form', { name: 'New run' });
  if (!(await form.isVisible())) {
    await page
      .getByRole('button', { name: /new run/i })
      .or(page.getByRole('link', { name: /new run/i }))
      .first()
      .click();
  }
  await expect(form).toBeVisible();
  for (const [label, value] of Object.entries(fields))
    await form
      .getByLabel(new RegExp(`^${label}`))
      .first()
      .fill(value);
  const group = form.getByRole('group', { name: 'Tasks' });
  for (const box of await group.getByRole('checkbox').all()) await box.uncheck();
  for (const task of tasks) await group.getByRole('checkbox', { name: task }).check();
  for (const label of ticks) await form.getByLabel(label).check();
  await whenFilled();
  await form.getByRole('button', { name: /create/i }).click();
  await expect(page.getByRole('button', { name: 'Start', exact: true })).toBeVisible();
}
