// Whole journeys in a real Chromium with WebGPU. Run by `npm test`, which builds first and sets WEFT_BROWSER.
import { defineConfig } from '@playwright/test';
import { launchArguments } from './fleet/src/launch.ts';

const executablePath = process.env.WEFT_BROWSER;

export default defineConfig({
  testDir: './tests',
  outputDir: '../test-results',
  testIgnore: process.env.WEFT_LONG_TESTS === '1' ? [] : ['**/*.long.spec.ts'],
  fullyParallel: false,
  workers: 1,
  timeout: 300_000,
  expect: { timeout: 20_000 },
  reporter: [['list'], ['json']],
  use: {
    launchOptions: {
      ...(executablePath ? { executablePath } : { channel: 'chromium' }),
      args: launchArguments('software'),
    },
    trace: 'off',
    screenshot: 'off',
  },
});
