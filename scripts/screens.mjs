// `npm run screens`: pictures of every state of both pages into docs/screens/, taken from the real thing.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { root } from './environment.mjs';
import { reportingSetupErrors, setup } from './setup.mjs';

await reportingSetupErrors(async () => {
  const env = await setup({ browser: true, gpu: true });
  const playwright = join(root, 'node_modules', '@playwright', 'test', 'cli.js');
  const args = [playwright, 'test', '--config', 'e2e/screens.config.ts', ...process.argv.slice(2)];
  const child = spawn(process.execPath, args, { cwd: root, env, stdio: 'inherit' });
  await new Promise((resolve) => {
    child.on('exit', (code) => {
      process.exitCode = code ?? 1;
      resolve();
    });
  });
});
