// `weft join` in a process of its own, as a volunteer without a browser starts it.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..', '..', '..');

export class WeftJoin {
  readonly #stateDir = mkdtempSync(join(tmpdir(), 'weft-join-'));
  readonly #child: ChildProcess;
  #notes = '';
  /** The final document, once it has ended well; rejects with what it said otherwise. */
  readonly done: Promise<unknown>;

  constructor(url: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    const weft = join(root, 'apps', 'cli', 'dist', 'weft.js');
    const given = ['join', url, '--json', '--state-dir', this.#stateDir, ...args];
    const child = spawn(process.execPath, [weft, ...given], {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      this.#notes += chunk.toString();
    });
    this.done = new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code) => {
        rmSync(this.#stateDir, { recursive: true, force: true });
        if (code === 0) resolve(JSON.parse(output));
        else reject(new Error(`weft join ended with ${code}: ${this.#notes}`));
      });
    });
    // Whoever awaits `done` hears of a failure; a test that failed before has its own.
    this.done.catch(() => undefined);
  }

  /** Ends the process if it still runs. */
  stop(): void {
    this.#child.kill('SIGKILL');
  }
}
