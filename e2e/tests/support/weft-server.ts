// The real server in a process of its own, started as `weft serve` starts it, so that a test can kill it.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..', '..', '..');
const weft = join(root, 'apps', 'cli', 'dist', 'weft.js');

export interface ServerChoice {
  readonly host?: string;
  readonly model?: string;
  readonly tasks?: string;
  /** Further options of `weft serve`. */
  readonly args?: readonly string[];
}

export class WeftServer {
  /** As browsers on this machine reach it. */
  url = '';
  readonly token = 'token-of-the-browser-tests-0123456789';
  /** What the server keeps; lives until {@link stop}. */
  readonly dataDir = mkdtempSync(join(tmpdir(), 'weft-e2e-'));
  readonly #choice: ServerChoice;
  #port = 0;
  #child: ChildProcess | null = null;

  constructor(choice: ServerChoice = {}) {
    this.#choice = choice;
  }

  get port(): number {
    return this.#port;
  }

  /** Starts on a free port, and after a {@link kill} on the same port and data again. */
  async start(): Promise<void> {
    const { host = '127.0.0.1', model, tasks, args: more = [] } = this.#choice;
    const args = [weft, 'serve', '--json', '--host', host, '--port', String(this.#port), '--data-dir', this.dataDir];
    // Some tests reach it by a name that is not this machine's, as a browser elsewhere would.
    args.push('--allow-origin', 'http://volunteers.test');
    if (model) args.push('--model', model);
    if (tasks) args.push('--tasks', tasks);
    args.push(...more);
    const env = { ...process.env, WEFT_ADMIN_TOKEN: this.token, WEFT_LOG_LEVEL: 'warn' };
    const child = spawn(process.execPath, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'inherit'] });
    this.#child = child;
    const { url } = await new Promise<{ url: string }>((resolve, reject) => {
      let output = '';
      child.stdout?.on('data', (chunk: Buffer) => {
        output += chunk.toString();
        if (output.trimEnd().endsWith('}')) resolve(JSON.parse(output));
      });
      child.once('exit', (code) => reject(new Error(`weft serve ended with ${code}: ${output}`)));
    });
    const { port, protocol } = new URL(url);
    this.#port = Number(port);
    this.url = `${protocol}//localhost:${port}`;
  }

  /** SIGKILL: nothing is tidied up. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  async stop(): Promise<void> {
    await this.#end('SIGTERM');
    rmSync(this.dataDir, { recursive: true, force: true });
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    await new Promise<void>((resolve) => {
      child.once('exit', () => resolve());
      child.kill(signal);
    });
  }

  /** A path of the HTTP side, with the admin's token. */
  async get(path: string): Promise<Response> {
    return await fetch(`http://127.0.0.1:${this.#port}${path}`, { headers: { authorization: `Bearer ${this.token}` } });
  }
}
