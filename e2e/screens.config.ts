// Pictures for the documentation; see screens/. Not part of `npm test`.
import { defineConfig } from '@playwright/test';
import { launchArguments } from './fleet/src/launch.ts';

const executablePath = process.env.WEFT_BROWSER;

export default defineConfig({
  testDir: './screens',
  outputDir: '../test-results',
  workers: 1,
  timeout: 900_000,
  expect: { timeout: 60_000 },
  reporter: [['list']],
  use: {
    launchOptions: {
      ...(executablePath ? { executablePath } : { channel: 'chromium' }),
      // One page is opened under a foreign name, which a browser does not count as secure.
      args: [...launchArguments('software'), '--host-resolver-rules=MAP volunteers.test 127.0.0.1'],
    },
  },
});
