// A server as an operator runs it, `weft serve` in a process of its own, with a token the trial knows. What it says on stderr
// is kept, so that a trial can tell why it ended.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { ROUTES } from '@weft/protocol';
import { assetPath, weftPath } from './entry.ts';

export const ADMIN_TOKEN = 'a token for trials';

/** Limits by address that let thousands come from this one machine. */
export const CROWD_LIMITS = ['connections=30000', 'hellos=1000000', 'requests=1000000'].flatMap((limit) => [
  '--limit',
  limit,
]);

export interface ServeOptions {
  readonly dataDir: string;
  readonly modelDir?: string;
  readonly port?: number;
  /** Further flags of `weft serve`. */
  readonly flags?: readonly string[];
}

export class ServerProcess {
  readonly #child: ChildProcess;
  readonly url: string;
  readonly #errors: string[];

  private constructor(child: ChildProcess, url: string, errors: string[]) {
    this.#child = child;
    this.url = url;
    this.#errors = errors;
  }

  /** Resolves when it listens. */
  static async start({ dataDir, modelDir, port = 0, flags = [] }: ServeOptions): Promise<ServerProcess> {
    const model = modelDir ?? assetPath('models', 'stories260K');
    const args = ['serve', '--json', '--model', model, '--data-dir', dataDir, '--port', String(port), ...flags];
    const child = spawn(process.execPath, [weftPath(), ...args], {
      env: { ...process.env, WEFT_ADMIN_TOKEN: ADMIN_TOKEN, WEFT_LOG_LEVEL: 'error' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const errors: string[] = [];
    child.stderr.on('data', (data: Buffer) => {
      errors.push(String(data));
      if (errors.length > 100) errors.shift();
    });
    const url = await new Promise<string>((resolve, reject) => {
      let said = '';
      child.stdout.on('data', (data: Buffer) => {
        said += String(data);
        const found = /"url": *"([^"]+)"/.exec(said)?.[1];
        if (found) resolve(found);
      });
      child.on('exit', () => reject(new Error(`The server ended before it listened:\n${errors.join('')}`)));
    });
    return new ServerProcess(child, url, errors);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get isAlive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** The last lines of its log: errors only. */
  get errors(): string {
    return this.#errors.join('');
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  /** Resident memory in bytes; NaN when it has ended. */
  residentBytes(): number {
    return this.#memory('VmRSS');
  }

  /** The most of it so far. */
  peakBytes(): number {
    return this.#memory('VmHWM');
  }

  /** Resident memory of the processes it has started: the index, merges. 0 where there are none. */
  childrenBytes(): number {
    if (!this.isAlive) return Number.NaN;
    const children = readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, 'utf8').split(' ').filter(Boolean);
    return children.reduce((sum, pid) => {
      try {
        return sum + memoryOf(pid, 'VmRSS');
      } catch {
        // It has ended since the list was read.
        return sum;
      }
    }, 0);
  }

  #memory(field: 'VmRSS' | 'VmHWM'): number {
    return this.isAlive ? memoryOf(this.pid, field) : Number.NaN;
  }

  /** Processor time used so far, threads included and child processes not, in milliseconds. */
  processorMs(): number {
    return processorMs(this.pid);
  }

  async end(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    if (!this.isAlive) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill(signal);
    await gone;
  }
}

/** A field of /proc, where there is one, in bytes. */
function memoryOf(pid: number | string, field: 'VmRSS' | 'VmHWM'): number {
  const kilobytes = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kilobytes ?? Number.NaN) * 1024;
}

/**
 * Has the server make its index of past work now. It does so in the background of a data folder's first minute, with a core and
 * memory that would be missed in the middle of a measurement.
 */
export async function makeIndex(url: string, runId: string): Promise<void> {
  const headers = { authorization: `Bearer ${ADMIN_TOKEN}` };
  const reply = await fetch(url + ROUTES.contributors(runId), { headers });
  if (!reply.ok) throw new Error(`The index of past work is not there: ${await reply.text()}`);
}

/** Of any process; in steps of the kernel's clock of a hundredth of a second. */
export function processorMs(pid: number): number {
  // The name, in parentheses, may hold spaces; user and system time are the 12th and 13th field behind it.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  return 10 * (Number(fields[11]) + Number(fields[12]));
}
