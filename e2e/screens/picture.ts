// One picture a state and colour scheme: docs/screens/<page>-<state>-<light|dark>.png.
import { join } from 'node:path';
import type { Page } from '@playwright/test';

const folder = join(import.meta.dirname, '..', '..', 'docs', 'screens');

export const LARGE = { width: 1280, height: 800 } as const;
/** The volunteer page is one column; a wider window would show margins. */
export const COLUMN = { width: 760, height: 860 } as const;
export const PHONE = { width: 360, height: 640 } as const;

/** Software adapters leave little time for painting while they train. */
const PAINT_MS = 120_000;

/** Takes the state as it stands, light and dark, at this size. */
export async function picture(page: Page, name: string, size: { width: number; height: number }): Promise<void> {
  await page.setViewportSize(size);
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    await page.screenshot({
      path: join(folder, `${name}-${colorScheme}.png`),
      timeout: PAINT_MS,
      scale: 'css',
      animations: 'disabled',
    });
  }
}
