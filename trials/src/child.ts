// Programs of trials/dist as child processes that are told what to do by messages. A child that ends instead of answering is an
// error, never a trial that waits.
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { entryPath } from './entry.ts';

/** Starts `<name>.js` of trials/dist with none of this process's options: a test runner's would have it load sources. */
export const forkBuilt = (name: string, args: readonly string[] = []): ChildProcess =>
  fork(entryPath(name), args, { execArgv: [] });

/** The child's next message. Rejects when the child ends or cannot be started. */
export async function nextMessage(child: ChildProcess): Promise<unknown> {
  const over = new AbortController();
  const { signal } = over;
  try {
    return await Promise.race([
      once(child, 'message', { signal }).then(([message]) => message as unknown),
      once(child, 'exit', { signal }).then(([code, by]) => {
        throw new Error(`A child process ended before it answered: ${by ? `killed by ${by}` : `exit code ${code}`}.`);
      }),
    ]);
  } finally {
    over.abort();
  }
}
