// How `weft admin` and `weft invite` reach a server: by WEFT_ADMIN_TOKEN, or by signing in for the time of the command.
import { ProtocolError, ROUTES, signInReplySchema, wireErrorSchema } from '@weft/protocol';
import type { Command } from 'commander';
import { AdminClient } from '../admin-client.ts';
import { CommandError, UsageError } from '../command.ts';
import { parseServerAddress } from '../node-volunteer/server-address.ts';
import type { Passwords } from './passwords.ts';

export interface ServerChoice {
  readonly server?: string;
  readonly user?: string;
}

export const DEFAULT_SERVER = 'http://127.0.0.1:8080';

export const CREDENTIALS_HELP = `
Who you are: WEFT_ADMIN_TOKEN holds the admin token or the token of a session; or --user NAME signs in for this command,
with the password typed on the terminal or as a line of standard input. A self-signed certificate is trusted by
NODE_EXTRA_CA_CERTS=FILE.`;

export const withServer = (command: Command): Command =>
  command
    .option('--server <url>', `address of the running server (default: ${DEFAULT_SERVER})`)
    .option('--user <name>', 'sign in with this account');

async function post(origin: string, body: unknown): Promise<unknown> {
  let reply: Response;
  try {
    const headers = { 'content-type': 'application/json' };
    reply = await fetch(origin + ROUTES.sessions, { method: 'POST', headers, body: JSON.stringify(body) });
  } catch (cause) {
    throw new CommandError('no-server', `No server answers at ${origin}. Start it, or name another with --server.`, {
      cause,
    });
  }
  const answer: unknown = await reply.json();
  if (reply.ok) return answer;
  const error = answer !== null && typeof answer === 'object' && 'error' in answer ? answer.error : null;
  throw ProtocolError.fromWire(wireErrorSchema.parse(error));
}

/** Connects, works and signs out again. */
export async function withAdmin<T>(
  { server = DEFAULT_SERVER, user }: ServerChoice,
  passwords: Passwords,
  work: (client: AdminClient, origin: string) => Promise<T>,
): Promise<T> {
  const { origin } = parseServerAddress(server);
  const given = process.env.WEFT_ADMIN_TOKEN;
  if (user === undefined && !given) {
    throw new UsageError('Say who you are: set WEFT_ADMIN_TOKEN, or give --user NAME.');
  }
  let token = given ?? '';
  if (user !== undefined) {
    const password = await passwords.next(`Password of ${user}`);
    token = signInReplySchema.parse(await post(origin, { name: user, password })).token;
  }
  try {
    const client = await AdminClient.connect(origin, token);
    try {
      return await work(client, origin);
    } finally {
      client.close();
    }
  } finally {
    if (user !== undefined) {
      // A session that cannot be ended now ends by itself; the work's own outcome matters more.
      await fetch(origin + ROUTES.session('current'), {
        method: 'DELETE',
        headers: { authorization: `Bearer ${token}` },
      }).catch(() => undefined);
    }
  }
}
