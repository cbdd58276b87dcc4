// `npm run bench -w packages/flexlora`: makes the checkout ready and runs the built bench.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { root } from './environment.mjs';
import { reportingSetupErrors, setup } from './setup.mjs';

await reportingSetupErrors(async () => {
  const ready = await setup({ browser: false });
  const bench = join(root, 'packages', 'flexlora', 'dist', 'bench.js');
  const child = spawn(process.execPath, [bench, ...process.argv.slice(2)], {
    env: { ...process.env, ...ready },
    stdio: 'inherit',
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  process.exitCode = await new Promise((resolve) => child.on('exit', (code) => resolve(code ?? 1)));
});
