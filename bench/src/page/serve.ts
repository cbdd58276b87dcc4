// The bench in a headless Chromium: a page that loads the same bundle Node runs, from a server that serves nothing else.
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { basename, join } from 'node:path';
import { launchBrowser } from '@weft/e2e/fleet';
import type { SuiteOptions, SuiteResult } from '../result.ts';

const PAGE = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>weft bench</title>
<script type="module">
import { runSuite } from '/suite.js';
globalThis.runSuite = runSuite;
</script>`;

type Suite = typeof import('../suite.ts');

/** Serves the scripts in `folder` on a free port of this machine alone. */
async function serve(folder: string): Promise<Server> {
  const server = createServer((request, response) => {
    // Isolated pages have clocks of five microseconds instead of a tenth of a millisecond.
    response.setHeader('Cross-Origin-Opener-Policy', 'same-origin');
    response.setHeader('Cross-Origin-Embedder-Policy', 'require-corp');
    const path = new URL(request.url ?? '/', 'http://localhost').pathname;
    if (!path.endsWith('.js')) {
      response.setHeader('Content-Type', 'text/html');
      response.end(PAGE);
      return;
    }
    readFile(join(folder, basename(path))).then(
      (content) => {
        response.setHeader('Content-Type', 'text/javascript');
        response.end(content);
      },
      () => {
        response.statusCode = 404;
        response.end();
      },
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  return server;
}

/**
 * Runs the suite in a page. `folder` holds the bundle, whose suite is `suite.js`. Throws FleetError 'no-browser', or what the
 * page throws.
 */
export async function runInChromium(
  folder: string,
  options: SuiteOptions,
  progress: (text: string) => void,
): Promise<{ result: SuiteResult; version: string }> {
  const server = await serve(folder);
  try {
    const browser = await launchBrowser();
    try {
      const page = await browser.newPage();
      page.setDefaultTimeout(0);
      const crashed = new Promise<never>((_, reject) =>
        page.once('crash', () => reject(new Error('The page crashed; run it again, or with --quick.'))),
      );
      await page.exposeFunction('benchProgress', progress);
      await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
      await page.waitForFunction('globalThis.runSuite');
      const run = page.evaluate((given) => {
        const { runSuite, benchProgress } = globalThis as unknown as Suite & { benchProgress: (text: string) => void };
        return runSuite(navigator.gpu, given, benchProgress);
      }, options);
      return { result: await Promise.race([run, crashed]), version: browser.version() };
    } finally {
      await browser.close();
    }
  } finally {
    server.close();
  }
}
