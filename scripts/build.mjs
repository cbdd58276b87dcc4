// Builds every workspace that has a vite.config.ts, when its sources changed since the last build.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { root, stateFolder } from './environment.mjs';

const workspaces = () =>
  ['packages', 'apps']
    .flatMap((folder) => readdirSync(join(root, folder)).map((name) => join(root, folder, name)))
    .concat(join(root, 'e2e'), join(root, 'bench'), join(root, 'trials'))
    .filter((folder) => existsSync(join(folder, 'vite.config.ts')));

function* sourceFiles(folder) {
  for (const entry of readdirSync(folder).sort()) {
    if (entry === 'node_modules' || entry === 'dist' || entry.includes('.test.')) continue;
    const path = join(folder, entry);
    if (statSync(path).isDirectory()) yield* sourceFiles(path);
    else yield path;
  }
}

function hashOf(folders) {
  const hash = createHash('sha256');
  for (const file of ['package-lock.json', 'tsconfig.json', 'vite.library.ts'])
    hash.update(readFileSync(join(root, file)));
  for (const folder of folders) {
    for (const path of sourceFiles(folder)) hash.update(relative(root, path)).update('\0').update(readFileSync(path));
  }
  return hash.digest('hex');
}

function viteBuild(folder) {
  return new Promise((resolve, reject) => {
    const vite = join(root, 'node_modules', 'vite', 'bin', 'vite.js');
    const child = spawn(process.execPath, [vite, 'build'], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    child.on('error', reject);
    child.on('exit', (code) =>
      code === 0 ? resolve() : reject(new Error(`building ${relative(root, folder)} failed:\n${output}`)),
    );
  });
}

/** @param {(text: string) => void} say told what is built */
export async function build(say = () => {}) {
  const stamps = join(stateFolder, 'build');
  mkdirSync(stamps, { recursive: true });
  const packages = workspaces().filter((folder) => relative(root, folder).startsWith('packages'));
  const queue = workspaces()
    // Only the pages and the bench bundle other workspaces; everything else is built from its own sources alone.
    .map((folder) => [folder, hashOf(/(web-client|bench)$/.test(folder) ? [folder, ...packages] : [folder])])
    .filter(([folder, hash]) => {
      const stamp = join(stamps, relative(root, folder).replace(/[\\/]/g, '-'));
      return !(existsSync(join(folder, 'dist')) && existsSync(stamp) && readFileSync(stamp, 'utf8') === hash);
    });
  if (queue.length === 0) return;
  say(`building ${queue.map(([folder]) => relative(root, folder)).join(', ')}`);
  const worker = async () => {
    for (let next = queue.shift(); next; next = queue.shift()) {
      const [folder, hash] = next;
      await viteBuild(folder);
      writeFileSync(join(stamps, relative(root, folder).replace(/[\\/]/g, '-')), hash);
    }
  };
  await Promise.all(Array.from({ length: Math.min(4, availableParallelism()) }, worker));
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  await build((text) => process.stderr.write(`weft build: ${text}\n`));
