// Two projects over the sources: `node` runs every unit test (WebGPU through Dawn), `chromium` runs the GPU tests
// (`*.gpu.test.ts`) again in a real browser. scripts/test.mjs sets the environment both need.
import { playwright } from '@vitest/browser-playwright';
import { defaultClientConditions, defaultServerConditions } from 'vite';
import { defineConfig } from 'vitest/config';
import { launchArguments } from './e2e/fleet/src/launch.ts';

const long = process.env.WEFT_LONG_TESTS === '1';
const unitTests = [
  'packages/**/*.test.ts',
  'apps/**/*.test.{ts,tsx}',
  'e2e/{fleet,foreign-client}/**/*.test.ts',
  'bench/**/*.test.ts',
  'trials/**/*.test.ts',
  'scripts/**/*.test.ts',
];
const exclude = ['**/node_modules/**', '**/dist/**', ...(long ? [] : ['**/*.long.test.ts'])];

export default defineConfig({
  test: {
    projects: [
      {
        resolve: { conditions: ['@weft/source', ...defaultServerConditions] },
        ssr: { resolve: { conditions: ['@weft/source', ...defaultServerConditions] } },
        test: {
          name: 'node',
          include: unitTests,
          exclude,
          environment: 'node',
          testTimeout: 300_000,
          hookTimeout: 300_000,
        },
      },
      {
        resolve: { conditions: ['@weft/source', ...defaultClientConditions] },
        test: {
          name: 'chromium',
          include: ['packages/**/*.gpu.test.ts', 'packages/**/*.gpu.long.test.ts'],
          exclude,
          testTimeout: 300_000,
          hookTimeout: 300_000,
          fileParallelism: false,
          browser: {
            enabled: true,
            headless: true,
            screenshotFailures: false,
            provider: playwright({
              launchOptions: {
                ...(process.env.WEFT_BROWSER ? { executablePath: process.env.WEFT_BROWSER } : { channel: 'chromium' }),
                args: launchArguments('software'),
              },
            }),
            instances: [{ browser: 'chromium' }],
          },
        },
      },
    ],
  },
});
