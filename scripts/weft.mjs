// `npm run weft -- COMMAND …`: makes the checkout ready, then runs the built command line in the caller's folder.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { root } from './environment.mjs';
import { reportingSetupErrors, setup } from './setup.mjs';

const args = process.argv.slice(2);
const command = args.find((argument) => !argument.startsWith('-'));
const asksForHelp = args.length === 0 || args.includes('--help') || args.includes('-h');
const needs = {
  browser: !asksForHelp && ['demo', 'fleet'].includes(command),
  gpu: !asksForHelp && ['demo', 'fleet', 'join', 'train', 'eval', 'generate', 'doctor'].includes(command),
};

await reportingSetupErrors(async () => {
  const env = await setup(needs);
  const child = spawn(process.execPath, [join(root, 'apps', 'cli', 'dist', 'weft.js'), ...args], {
    // npm runs scripts in the package's folder; relative paths on the command line mean the caller's.
    cwd: process.env.INIT_CWD ?? process.cwd(),
    env,
    stdio: 'inherit',
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  await new Promise((resolve) => {
    child.on('exit', (code, signal) => {
      process.exitCode = signal ? 1 : (code ?? 1);
      resolve();
    });
  });
});
