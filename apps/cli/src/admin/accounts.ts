// The accounts of a server as `weft admin` changes them: through the running server, or in the folder of a stopped one.
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Account, Role, SessionInfo } from '@weft/protocol';
import { Access, lockFolder, ServerError } from '@weft/server';
import { CommandError, UsageError } from '../command.ts';
import { type ServerChoice, withAdmin } from './connect.ts';
import type { Passwords } from './passwords.ts';

export interface AccountsDoor {
  accounts(): Promise<readonly Account[]>;
  add(name: string, role: Role, password: string): Promise<Account>;
  remove(name: string): Promise<void>;
  setRole(name: string, role: Role): Promise<Account>;
  setPassword(name: string, password: string): Promise<Account>;
  sessions(): Promise<readonly SessionInfo[]>;
  endSessions(which: { sessionId: string } | { account: string }): Promise<number>;
  newToken(): Promise<string>;
}

export interface DoorChoice extends ServerChoice {
  readonly dataDir?: string;
}

/** Opens the door, works and closes it. `--data-dir` and `--server` exclude each other. */
export async function withAccounts<T>(
  choice: DoorChoice,
  passwords: Passwords,
  work: (door: AccountsDoor) => Promise<T>,
): Promise<T> {
  const { dataDir, server, user } = choice;
  if (dataDir === undefined) return withAdmin(choice, passwords, (client) => work(throughServer(client)));
  if (server !== undefined || user !== undefined) {
    throw new UsageError('--data-dir works on a stopped server’s folder; leave --server and --user out.');
  }
  const folder = resolve(dataDir);
  if (!existsSync(join(folder, 'runs'))) {
    throw new CommandError(
      'no-data-folder',
      `${folder} is no data folder of weft serve. Name the one it was started with.`,
    );
  }
  const unlock = lock(folder);
  try {
    // The folder may have no token yet; only new-token makes one, so that no other command prints a secret.
    const adminToken = randomBytes(32).toString('base64url');
    const monotonic = () => performance.now();
    return await work(inFolder(new Access({ dataDir: folder, now: () => new Date(), monotonic, adminToken })));
  } finally {
    unlock();
  }
}

function lock(folder: string): () => void {
  try {
    return lockFolder(folder);
  } catch (cause) {
    if (!(cause instanceof ServerError) || cause.code !== 'data-dir-locked') throw cause;
    throw new CommandError(
      cause.code,
      `A server is running on ${folder}. Go through it as an owner: the same command with --server URL --user NAME in the place of --data-dir. Or stop it, run this again and start it.`,
      { cause },
    );
  }
}

type Client = Parameters<Parameters<typeof withAdmin>[2]>[0];

const throughServer = (client: Client): AccountsDoor => ({
  accounts: async () => (await client.request('admin:accounts', {})).accounts,
  add: (name, role, password) => client.request('admin:account-add', { name, role, password }),
  remove: async (name) => void (await client.request('admin:account-remove', { name })),
  setRole: (name, role) => client.request('admin:account-role', { name, role }),
  setPassword: (name, password) => client.request('admin:account-password', { name, password }),
  sessions: async () => (await client.request('admin:sessions', {})).sessions,
  endSessions: async (which) =>
    (await client.request('admin:session-revoke', { sessionId: null, account: null, ...which })).ended,
  newToken: async () => (await client.request('admin:new-token', {})).token,
});

const inFolder = (access: Access): AccountsDoor => ({
  accounts: async () => access.accounts(),
  add: (name, role, password) => access.addAccount(name, role, password),
  remove: async (name) => access.removeAccount(name),
  setRole: async (name, role) => access.setRole(name, role),
  setPassword: (name, password) => access.setPassword(name, password),
  sessions: async () => access.sessions(null),
  endSessions: async (which) => access.endSessions(which),
  newToken: async () => access.newAdminToken(),
});
