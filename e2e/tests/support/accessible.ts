// What axe says of a page as it stands, in light and dark. It finds what a machine can find.
import AxeBuilder from '@axe-core/playwright';
import { expect, type Page } from '@playwright/test';

/** No serious or critical violation, and no heading out of order, on the page as it stands, in light and in dark. */
export async function expectAccessible(page: Page, state: string): Promise<void> {
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    const { violations, passes } = await new AxeBuilder({ page }).analyze();
    expect(passes.length, 'axe has looked at something').toBeGreaterThan(10);
    const grave = violations
      .filter(({ impact, id }) => impact === 'serious' || impact === 'critical' || id === 'heading-order')
      .flatMap(({ id, help, nodes }) => nodes.map(({ target, html }) => `${id}: ${help}: ${target.join(' ')} ${html}`));
    expect(grave, `${state}, ${colorScheme}`).toEqual([]);
  }
}
