// `weft load` as a process of its own, and its report.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { weftPath } from './entry.ts';

/** What the trials read of a report of `weft load --json`; apps/cli/src/commands/load.ts writes it. Milliseconds and bytes. */
export interface LoadReport {
  readonly volunteers: number;
  readonly honest: number;
  readonly processes: number;
  readonly mostAdmitted: number;
  readonly leastAdmitted: number;
  readonly mostLeased: number;
  readonly allAfterSeconds: number | null;
  readonly steadySeconds: number;
  readonly rounds: number;
  readonly outages: readonly { atSeconds: number; lost: number; backAfterSeconds: number | null }[];
  readonly receipts: number;
  readonly reconnections: number;
  readonly acknowledgements: Readonly<Record<string, Percentiles>>;
  readonly errors: Readonly<Record<'honest' | 'misbehaving', Readonly<Record<string, number>>>>;
  readonly loadProcesses: readonly { rssBytes: number; loopDelayP99Ms: number }[];
}

export interface Percentiles {
  readonly count: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

export interface LoadProcess {
  readonly report: Promise<LoadReport>;
  /** As Ctrl-C: everybody leaves, then the report. */
  stop(): void;
}

/** Starts `weft load URL …args`; its progress goes line by line to `say`. */
export function startLoad(url: string, args: readonly string[], say: (line: string) => void): LoadProcess {
  const child = spawn(process.execPath, [weftPath(), 'load', url, '--json', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let out = '';
  const lines: string[] = [];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    for (const line of text.split('\n').filter((part) => part.trim() !== '')) {
      lines.push(line);
      say(`  ${line}`);
    }
  });
  const report = once(child, 'close').then(() => {
    const document = JSON.parse(out || '{}') as LoadReport | { error?: unknown };
    if ('acknowledgements' in document) return document;
    throw new Error(`weft load ended with exit code ${child.exitCode} without a report:\n${lines.join('\n')}`);
  });
  // Whoever starts a load awaits its report, but perhaps only later.
  report.catch(() => undefined);
  return { report, stop: () => void child.kill('SIGTERM') };
}
