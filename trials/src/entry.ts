// Where the built programs are that trials run as processes of their own: the command line, and what stands in trials/dist.
// Trials run built code also when they are themselves run from their sources (tests).
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** The built `weft`. */
export const weftPath = (): string => built(join('apps', 'cli', 'dist', 'weft.js'));

/** `<name>.js` of trials/dist. */
export const entryPath = (name: string): string => built(join('trials', 'dist', `${name}.js`));

/** A file or folder of the repository's assets. */
export const assetPath = (...parts: string[]): string => join(root, 'assets', ...parts);

function built(place: string): string {
  const path = join(root, place);
  if (!existsSync(path)) throw new Error(`${path} is missing. Build it first: npm run build.`);
  return path;
}
