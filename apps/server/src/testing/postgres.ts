// A PostgreSQL of a test's own: temporary folder, Unix socket, password, nothing flushed. Not how to run one in earnest.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';

export const POSTGRES_PASSWORD = 'a password: for/tests?';

export interface TestPostgres {
  readonly url: string;
  start(): Promise<void>;
  /** Ends it as a crash would: no connection is told. */
  crash(): Promise<void>;
  /** Ends it and removes its files. */
  remove(): Promise<void>;
}

/** PostgreSQL refuses to run as root; where we are root it runs as a user without rights. */
function otherUser(): { uid: number; gid: number } | null {
  if (process.getuid?.() !== 0) return null;
  for (const name of ['postgres', 'nobody']) {
    try {
      const id = (flag: string) => Number(execFileSync('id', [flag, name], { stdio: ['ignore', 'pipe', 'ignore'] }));
      return { uid: id('-u'), gid: id('-g') };
    } catch {
      // No such user: the next.
    }
  }
  throw new Error('Neither a user "postgres" nor "nobody" to run PostgreSQL as.');
}

/** `bin`: folder of PostgreSQL's programs. Resolves when it takes connections. */
export async function startPostgres(bin: string): Promise<TestPostgres> {
  const user = otherUser();
  const folder = mkdtempSync(join(tmpdir(), 'weft-pg-'));
  const data = join(folder, 'data');
  const passwordFile = join(folder, 'password');
  writeFileSync(passwordFile, `${POSTGRES_PASSWORD}\n`);
  if (user) for (const path of [folder, passwordFile]) chownSync(path, user.uid, user.gid);
  const asUser = { cwd: folder, ...(user ?? {}) };
  const initdb = ['-D', data, '-U', 'weft', '-A', 'scram-sha-256', `--pwfile=${passwordFile}`, '-E', 'UTF8'];
  execFileSync(join(bin, 'initdb'), [...initdb, '--no-locale', '--no-sync'], { ...asUser, stdio: 'ignore' });

  const url = `postgresql://weft:${encodeURIComponent(POSTGRES_PASSWORD)}@localhost/postgres?host=${encodeURIComponent(folder)}`;
  const settings = ['fsync=off', 'full_page_writes=off', 'synchronous_commit=off', 'listen_addresses='];
  let child: ChildProcess | null = null;
  const end = async (signal: NodeJS.Signals) => {
    const ending = child;
    child = null;
    if (!ending || ending.exitCode !== null) return;
    const gone = once(ending, 'exit');
    ending.kill(signal);
    await gone;
  };
  // Should the test's process end by itself, so does the database.
  process.on('exit', () => child?.kill('SIGQUIT'));
  const start = async () => {
    child = spawn(join(bin, 'postgres'), ['-D', data, '-k', folder, ...settings.flatMap((text) => ['-c', text])], {
      ...asUser,
      stdio: 'ignore',
    });
    await untilReady(url);
  };
  await start();
  return {
    url,
    start,
    crash: () => end('SIGQUIT'),
    async remove() {
      await end('SIGQUIT');
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function untilReady(url: string, attempts = 200): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const client = new Client({ connectionString: url });
    client.on('error', () => undefined);
    try {
      await client.connect();
      await client.end();
      return;
    } catch (error) {
      if (attempt === attempts) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
