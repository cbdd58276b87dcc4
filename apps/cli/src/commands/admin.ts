// `weft admin`: accounts, sessions and the admin token of a server, running or stopped.
import { accountNameSchema, passwordSchema, ROLES, type Role, roleSchema } from '@weft/protocol';
import type { Command } from 'commander';
import { type AccountsDoor, type DoorChoice, withAccounts } from '../admin/accounts.ts';
import { CREDENTIALS_HELP, withServer } from '../admin/connect.ts';
import { openPasswords, type Passwords } from '../admin/passwords.ts';
import { action, type Io, table, UsageError } from '../command.ts';
import type { Register } from '../program.ts';

const HELP = `${CREDENTIALS_HELP}
With --data-dir the same is done in the folder of a stopped server, without any credential.

Examples:
  weft admin new-token --data-dir weft-data            the admin token was lost
  weft admin add-account anna --role operator --data-dir weft-data
  WEFT_ADMIN_TOKEN=… weft admin list --server https://weft.example.org
  weft admin revoke --account anna --user olga`;

function nameOf(text: string): string {
  const parsed = accountNameSchema.safeParse(text);
  if (!parsed.success) throw new UsageError(`"${text}" is no name of an account: ${parsed.error.issues[0]?.message}.`);
  return parsed.data;
}

function roleOf(text: string | undefined): Role {
  const parsed = roleSchema.safeParse(text);
  if (!parsed.success) throw new UsageError(`--role is one of ${ROLES.join(', ')}.`);
  return parsed.data;
}

async function newPassword(passwords: Passwords, name: string): Promise<string> {
  const parsed = passwordSchema.safeParse(await passwords.next(`New password of ${name}`, { confirm: true }));
  if (!parsed.success) throw new UsageError(`The password ${parsed.error.issues[0]?.message}.`);
  return parsed.data;
}

type Work<Options> = (
  door: AccountsDoor,
  parts: { options: Options; args: string[]; io: Io; passwords: Passwords },
) => Promise<void>;

/** Gives a subcommand its way to the server or folder. */
function through<Options extends object = object>(command: Command, work: Work<Options>): void {
  withServer(command)
    .option('--data-dir <dir>', 'the folder of a stopped server, in the place of --server')
    .addHelpText('after', CREDENTIALS_HELP);
  action<Options & DoorChoice>(command, async (options, args, io) => {
    const passwords = openPasswords(io.signal);
    await withAccounts(options, passwords, (door) => work(door, { options, args, io, passwords }));
  });
}

export const registerAdmin: Register = (program) => {
  const admin = program
    .command('admin')
    .description('Accounts and sessions of the dashboard; a new admin token where the old one was lost.')
    .addHelpText('after', HELP);

  through<{ role?: string }>(
    admin
      .command('add-account')
      .description('Add an account. Its password is typed, or a line of standard input.')
      .argument('<name>', '1 to 32 lower-case letters, digits, ".", "_" or "-"')
      .requiredOption('--role <role>', 'viewer, operator or owner'),
    async (door, { options, args: [text = ''], io, passwords }) => {
      const [name, role] = [nameOf(text), roleOf(options.role)];
      const account = await door.add(name, role, await newPassword(passwords, name));
      io.result(account, () => `${account.name} can sign in as ${account.role}.`);
    },
  );
  through(
    admin.command('remove').description('Remove an account and end its sessions.').argument('<name>'),
    async (door, { args: [text = ''], io }) => {
      const name = nameOf(text);
      await door.remove(name);
      io.result({ removed: name }, () => `${name} is removed and signed out.`);
    },
  );
  through(admin.command('list').description('List the accounts.'), async (door, { io }) => {
    const accounts = await door.accounts();
    io.result({ accounts }, () =>
      accounts.length === 0
        ? 'There are no accounts. Add one: weft admin add-account NAME --role owner'
        : table([
            ['name', 'role', 'since', 'sessions'],
            ...accounts.map((each) => [each.name, each.role, each.createdAt.slice(0, 10), each.sessions]),
          ]),
    );
  });
  through(
    admin
      .command('set-role')
      .description('Change what an account may do.')
      .argument('<name>')
      .argument('<role>', ROLES.join(', ')),
    async (door, { args: [text = '', role], io }) => {
      const account = await door.setRole(nameOf(text), roleOf(role));
      io.result(account, () => `${account.name} is ${account.role} now.`);
    },
  );
  through(
    admin.command('set-password').description('Set an account’s password and end its sessions.').argument('<name>'),
    async (door, { args: [text = ''], io, passwords }) => {
      const name = nameOf(text);
      const account = await door.setPassword(name, await newPassword(passwords, name));
      io.result(account, () => `${account.name} has a new password and is signed out everywhere.`);
    },
  );
  through(admin.command('sessions').description('List who is signed in.'), async (door, { io }) => {
    const sessions = await door.sessions();
    io.result({ sessions }, () =>
      sessions.length === 0
        ? 'Nobody is signed in with an account.'
        : table([
            ['session', 'account', 'since', 'last used', 'ends'],
            ...sessions.map((each) => [each.sessionId, each.account, each.createdAt, each.lastUsedAt, each.expiresAt]),
          ]),
    );
  });
  through<{ account?: string }>(
    admin
      .command('revoke')
      .description('End a session, or all of an account.')
      .argument('[session]', 'its id, from weft admin sessions')
      .option('--account <name>', 'all sessions of this account'),
    async (door, { options: { account }, args: [sessionId], io }) => {
      if ((sessionId === undefined) === (account === undefined)) {
        throw new UsageError('Name a session, or an account with --account.');
      }
      const ended = await door.endSessions(
        account === undefined ? { sessionId: sessionId ?? '' } : { account: nameOf(account) },
      );
      io.result({ ended }, () => `${ended} ${ended === 1 ? 'session is' : 'sessions are'} ended.`);
    },
  );
  through(
    admin.command('new-token').description('Make a new admin token; the old one is worth nothing from then on.'),
    async (door, { io }) => {
      const token = await door.newToken();
      io.result({ adminToken: token }, () => `Admin token: ${token}\n(shown this once; only its hash is kept)`);
    },
  );
};
