// Where the built worker entries are. Workers run built code also when the server itself runs from its sources (tests).
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ServerError } from './errors.ts';

/** Path of `<name>.js` in dist. Throws ServerError 'worker-missing' when it is not built. */
export function workerPath(name: 'merge-worker' | 'database-worker'): string {
  const fromSource = import.meta.url.endsWith('.ts');
  const path = fileURLToPath(new URL(fromSource ? `../dist/${name}.js` : `./${name}.js`, import.meta.url));
  if (!existsSync(path))
    throw new ServerError('worker-missing', `${path} is missing. Build the server first: npm run build.`);
  return path;
}
