// One server over many processes, as a killed one is to its clients: `weft serve` started, killed and started again over one
// data folder and one port.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { z } from 'zod';
import { weftPath } from '../entry.ts';
import { ADMIN_TOKEN } from '../server-process.ts';

/** Longest a start may take before the trial gives up. */
const START_MS = 60_000;
/** Longest a stop may take; a server that is still there then is ended, and counted. */
const STOP_MS = 30_000;

const documentSchema = z.object({ url: z.string() });

export class RestartedServer {
  readonly #dataDir: string;
  #child: ChildProcess | null = null;
  #port = 0;
  /** Milliseconds from each spawn to the document on stdout, which is printed once the port is open. */
  readonly startMs: number[] = [];
  /** Processes that a SIGKILL ended. */
  kills = 0;
  /** Ends that nobody asked for, and stops that were no clean ones. */
  readonly mishaps: string[] = [];

  constructor(dataDir: string) {
    this.#dataDir = dataDir;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Spawns the server and does not wait for it. */
  spawn(): ChildProcess {
    const child = spawn(
      process.execPath,
      [weftPath(), 'serve', '--json', '--data-dir', this.#dataDir, '--port', String(this.#port), '--min-free', '0'],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
        env: { ...process.env, WEFT_ADMIN_TOKEN: ADMIN_TOKEN, WEFT_LOG_LEVEL: process.env.WEFT_LOG_LEVEL ?? 'fatal' },
      },
    );
    this.#child = child;
    return child;
  }

  /** Starts the server; resolves when it serves. Rejects when it ends before that. */
  async start(): Promise<void> {
    const began = performance.now();
    const child = this.spawn();
    let text = '';
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`The server did not serve within ${START_MS} ms.`)), START_MS);
      child.once('exit', (code, signal) => {
        clearTimeout(timer);
        if (this.#child === child) this.mishaps.push(`ended by itself (${code ?? signal})`);
        reject(new Error(`The server ended at its start (${code ?? signal}): ${text}`));
      });
      child.stdout?.setEncoding('utf8').on('data', (part: string) => {
        text += part;
        if (!text.trimEnd().endsWith('}')) return;
        clearTimeout(timer);
        this.#port = Number(new URL(documentSchema.parse(JSON.parse(text)).url).port);
        resolve();
      });
    });
    this.startMs.push(performance.now() - began);
  }

  /** Ends the process at once, as a crash does. */
  kill(): Promise<void> {
    return this.#end('SIGKILL');
  }

  stop(): Promise<void> {
    return this.#end('SIGTERM');
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    const late = setTimeout(() => {
      this.mishaps.push(`still there ${STOP_MS / 1000} s after ${signal}`);
      child.kill('SIGKILL');
    }, STOP_MS);
    const [code, endedBy] = (await gone) as [number | null, NodeJS.Signals | null];
    clearTimeout(late);
    if (signal === 'SIGKILL' && endedBy === 'SIGKILL') this.kills += 1;
    if (signal === 'SIGTERM' && code !== 0) this.mishaps.push(`ended with ${code ?? endedBy} when stopped`);
  }
}
