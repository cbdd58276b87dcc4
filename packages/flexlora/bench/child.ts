// Cases whose memory is measured run in processes of their own.
import { fork } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';

export interface PartResult {
  readonly ms: number;
  readonly peakBytes: number;
}

/**
 * The most memory this process has had. Linux counts in `maxRSS` what the parent had when it started this process; its status
 * file does not.
 */
export function peakBytes(): number {
  const status = '/proc/self/status';
  const [, kilobytes] = existsSync(status) ? (/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(status, 'utf8')) ?? []) : [];
  return 1024 * (kilobytes === undefined ? process.resourceUsage().maxRSS : Number(kilobytes));
}

/** This program in a process of its own, whose memory is its work's. `onDone` is told of every piece of work. */
export function inChild(args: readonly string[], onDone: () => void = () => {}): Promise<PartResult> {
  const child = fork(process.argv[1] ?? '', args);
  return new Promise((resolve, reject) => {
    let result: PartResult | null = null;
    child.on('message', (message: PartResult | 'done') => {
      if (message === 'done') onDone();
      else result = message;
    });
    child.on('exit', (code) =>
      result && code === 0 ? resolve(result) : reject(new Error(`A process of the bench ended with ${code}.`)),
    );
  });
}
