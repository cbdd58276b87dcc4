// Three projects over the sources: `node` runs every unit test (WebGPU through Dawn), `chromium` runs the GPU tests
// (`*.gpu.test.ts`) again in a real browser, `postgres` those that start a server, with its index in PostgreSQL.
// scripts/test.mjs sets the environment they need.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
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
/** Found by what they import or run, so that none is forgotten. */
const serverTests = ['apps/server/src', 'apps/cli/src', 'trials/src'].flatMap((folder) =>
  readdirSync(join(import.meta.dirname, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.test\.ts$/.test(name))
    .map((name) => `${folder}/${name}`)
    .filter((path) =>
      /testing\/(server|index-place|postgres)\.ts|createServer|'serve'|trials\//.test(
        `${path}\n${readFileSync(join(import.meta.dirname, path), 'utf8')}`,
      ),
    ),
);
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
          exclude: [...exclude, '**/*.postgres.test.ts'],
          environment: 'node',
          testTimeout: 300_000,
          hookTimeout: 300_000,
          // Of the developer's own: these tests are about PGlite.
          env: { DATABASE_URL: '', WEFT_TEST_DATABASE_URL: '' },
        },
      },
      {
        resolve: { conditions: ['@weft/source', ...defaultServerConditions] },
        ssr: { resolve: { conditions: ['@weft/source', ...defaultServerConditions] } },
        test: {
          name: 'postgres',
          include: serverTests,
          exclude,
          environment: 'node',
          testTimeout: 300_000,
          hookTimeout: 300_000,
          globalSetup: './vitest.postgres.ts',
          setupFiles: './vitest.postgres-file.ts',
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
