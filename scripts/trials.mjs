// `npm run chaos` and `npm run load`: make the checkout ready, then run the built trial. The first argument names which.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { root } from './environment.mjs';
import { reportingSetupErrors, setup } from './setup.mjs';

const [name, ...args] = process.argv.slice(2);

await reportingSetupErrors(async () => {
  const ready = await setup({ browser: false });
  const child = spawn(process.execPath, [join(root, 'trials', 'dist', `${name}.js`), ...args], {
    cwd: process.env.INIT_CWD ?? process.cwd(),
    env: { ...process.env, ...ready },
    stdio: 'inherit',
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  process.exitCode = await new Promise((resolve) => child.on('exit', (code) => resolve(code ?? 1)));
});
