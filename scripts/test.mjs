// `npm test`: set-up, then types, lint and import rules, unit tests in Node, those of the server again on PostgreSQL, GPU
// tests in Chromium, pages in Chromium.
// Ends with the sum of all suites, `N passed, N failed`, alone on a line; skipped tests are named above it.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { root, stateFolder } from './environment.mjs';
import { findPostgres, POSTGRES_REMEDY } from './postgres.mjs';
import { reportingSetupErrors, setup } from './setup.mjs';

const long = process.argv.includes('--long');
const only = process.argv
  .find((argument) => argument.startsWith('--only='))
  ?.slice('--only='.length)
  .split(',');
const reports = join(stateFolder, 'reports');

function run(command, args, env) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [join(root, 'node_modules', command), ...args], {
      cwd: root,
      env,
      stdio: 'inherit',
    });
    child.on('error', () => resolve(1));
    child.on('exit', (code) => resolve(code ?? 1));
  });
}

/** Counts of a Vitest JSON report. */
function readVitest(path) {
  const report = JSON.parse(readFileSync(path, 'utf8'));
  const cases = report.testResults.flatMap((file) =>
    file.assertionResults.map((test) => ({
      name: `${relative(root, file.name)} › ${test.fullName}`,
      status: test.status,
    })),
  );
  const brokenFiles = report.testResults.filter(
    (file) => file.status === 'failed' && file.assertionResults.length === 0,
  );
  return {
    passed: cases.filter((test) => test.status === 'passed').length,
    failed: cases.filter((test) => test.status === 'failed').length + brokenFiles.length,
    skipped: cases
      .filter((test) => ['skipped', 'pending', 'todo', 'disabled'].includes(test.status))
      .map((test) => test.name),
  };
}

/** Counts of a Playwright JSON report. */
function readPlaywright(path) {
  const report = JSON.parse(readFileSync(path, 'utf8'));
  const specs = (suite) => [...(suite.specs ?? []), ...(suite.suites ?? []).flatMap(specs)];
  const tests = report.suites
    .flatMap(specs)
    .flatMap((spec) => spec.tests.map((test) => ({ name: `${spec.file} › ${spec.title}`, status: test.status })));
  return {
    passed: tests.filter((test) => test.status === 'expected' || test.status === 'flaky').length,
    failed: tests.filter((test) => test.status === 'unexpected').length + (report.errors?.length ?? 0),
    skipped: tests.filter((test) => test.status === 'skipped').map((test) => test.name),
  };
}

async function suite(name, command, args, env, read) {
  if (only && !only.includes(name)) return { passed: 0, failed: 0, skipped: [] };
  process.stdout.write(`\n── ${name}\n`);
  const started = Date.now();
  const code = await run(command, args, env);
  const report = join(reports, `${name}.json`);
  let result = { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: [] };
  if (read && existsSync(report)) result = read(report);
  // A runner that failed without a failed test (a crash, no test found) is a failure too.
  if (code !== 0 && result.failed === 0) result.failed = 1;
  const seconds = Math.round((Date.now() - started) / 1000);
  process.stdout.write(
    `── ${name}: ${result.passed} passed, ${result.failed} failed, ${result.skipped.length} skipped in ${seconds} s\n`,
  );
  return result;
}

/** The server's tests on PostgreSQL where the machine has one; where it has none that is said, and a failure where it must. */
async function postgresSuite(args, env) {
  if ((only && !only.includes('postgres')) || findPostgres()) {
    return suite('postgres', 'vitest/vitest.mjs', args, env, readVitest);
  }
  const required = process.env.WEFT_REQUIRE_POSTGRES === '1';
  process.stdout.write(`\n── postgres: ${required ? 'failed' : 'skipped'}: ${POSTGRES_REMEDY}\n`);
  const name = `the server’s tests on PostgreSQL: ${POSTGRES_REMEDY}`;
  return { passed: 0, failed: required ? 1 : 0, skipped: [name] };
}

await reportingSetupErrors(async () => {
  const ready = await setup({ browser: true, gpu: true, python: long });
  rmSync(reports, { recursive: true, force: true });
  mkdirSync(reports, { recursive: true });
  const env = { ...ready, ...(long ? { WEFT_LONG_TESTS: '1' } : {}) };
  const vitest = (project) => [
    'run',
    `--project=${project}`,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${join(reports, `${project}.json`)}`,
  ];

  const results = [
    await suite('types', 'typescript/bin/tsc', ['--noEmit', '-p', 'tsconfig.json'], env),
    await suite('lint', '@biomejs/biome/bin/biome', ['check', '.'], env),
    await suite('node', 'vitest/vitest.mjs', vitest('node'), env, readVitest),
    await postgresSuite(vitest('postgres'), env),
    await suite('chromium', 'vitest/vitest.mjs', vitest('chromium'), env, readVitest),
    await suite(
      'pages',
      '@playwright/test/cli.js',
      ['test', '--config', 'e2e/playwright.config.ts'],
      { ...env, PLAYWRIGHT_JSON_OUTPUT_NAME: join(reports, 'pages.json') },
      readPlaywright,
    ),
  ];
  const sum = (key) => results.reduce((total, result) => total + result[key], 0);
  const skipped = results.flatMap((result) => result.skipped);
  process.stdout.write('\n');
  for (const name of skipped) process.stdout.write(`skipped: ${name}\n`);
  process.stdout.write(`${sum('passed')} passed, ${sum('failed')} failed\n`);
  process.exitCode = sum('failed') === 0 ? 0 : 1;
});
