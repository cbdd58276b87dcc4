// Child processes that merge: their memory and their stalls are not the caller's, and a crash is an error of one job.
import { availableParallelism } from 'node:os';
import { Tinypool } from 'tinypool';

/** An idle process ends after this many milliseconds; rounds come in bursts. */
const IDLE_MS = 30_000;

/** One less than there are cores, four at most: a merge should not take the machine from whoever serves the round. */
export const defaultProcesses = (): number => Math.max(1, Math.min(4, availableParallelism() - 1));

/** `entry`: file whose exported functions are the jobs. Messages are structured clones. */
export function processPool(entry: string, most: number): Tinypool {
  const pool = new Tinypool({
    filename: entry,
    runtime: 'child_process',
    serialization: 'advanced',
    minThreads: 0,
    maxThreads: most,
    idleTimeout: IDLE_MS,
    env: { ...process.env } as Record<string, string>,
    // Loaders and inspectors of this process are not the workers'.
    execArgv: [],
  });
  // A process that dies at work rejects its job, and the next job gets a new process. One that dies idle (killed from outside,
  // or by the stop of its server) is told here alone, and must not end whoever keeps the pool.
  pool.on('error', () => undefined);
  return pool;
}
