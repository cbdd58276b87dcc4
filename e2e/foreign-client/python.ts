// The Python that runs the foreign client: the first on this machine that has its packages. Installs nothing (scripts/setup.mjs
// does, for `npm run test:long`).
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

const requirements = z
  .object({ modules: z.array(z.string()), debian: z.array(z.string()) })
  .parse(JSON.parse(readFileSync(join(import.meta.dirname, 'requirements.json'), 'utf8')));

/** What to say where none is found. */
export const MISSING_PYTHON = `no Python has ${requirements.modules.join(', ')}; on Debian: apt-get install ${requirements.debian.join(' ')}`;

const CANDIDATES = [process.env.WEFT_PYTHON, 'python3', '/usr/bin/python3'];

/** Command of a Python that can run the client, or null. */
export function findPython(): string | null {
  const asks = ['-c', `import ${requirements.modules.join(', ')}`];
  const found = CANDIDATES.find((python) => python && spawnSync(python, asks, { stdio: 'ignore' }).status === 0);
  return found ?? null;
}

export interface PythonRun {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs client.py with these arguments; resolves when it has ended. `started` gets its process. */
export function runClient(
  python: string,
  args: readonly string[],
  started: (child: ChildProcess) => void = () => undefined,
): Promise<PythonRun> {
  return new Promise((resolve, reject) => {
    const child = spawn(python, [join(import.meta.dirname, 'client.py'), ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1' },
    });
    started(child);
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, stdout, stderr }));
  });
}
