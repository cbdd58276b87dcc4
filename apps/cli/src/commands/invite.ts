// `weft invite`: links by which volunteers come into a run that takes invited ones only.
import { type Invite, idSchema } from '@weft/protocol';
import { CREDENTIALS_HELP, type ServerChoice, withAdmin, withServer } from '../admin/connect.ts';
import { openPasswords } from '../admin/passwords.ts';
import { action, numberOption, table, UsageError } from '../command.ts';
import { durationOption } from '../duration.ts';
import type { Register } from '../program.ts';

interface CreateOptions extends ServerChoice {
  readonly run?: string;
  readonly label: string;
  readonly uses: number;
  readonly expires?: number;
  readonly page?: string;
}

const stateOf = (invite: Invite): string => {
  if (invite.revokedAt !== null) return 'taken back';
  if (Date.parse(invite.expiresAt) <= Date.now()) return 'expired';
  return invite.uses >= invite.maxUses ? 'used up' : 'open';
};

export const registerInvite: Register = (program) => {
  const invite = program
    .command('invite')
    .description('Invites for runs created with "admission": "invited".')
    .addHelpText('after', CREDENTIALS_HELP);

  const create = invite
    .command('create')
    .description('Make an invite and print its link, this once.')
    .option('--run <id>', 'the run it is for (default: every run of the server)')
    .option('--label <text>', 'for the list: whom it is for', '')
    .option('--uses <n>', 'volunteers it lets in', numberOption('--uses', { minimum: 1, integer: true }), 50)
    .option('--expires <time>', 'how long it is good: 90m, 12h, 7d (default: 7d)', durationOption('--expires'))
    .option('--page <url>', 'address of the page as volunteers reach it (default: that of --server)');
  action<CreateOptions>(withServer(create), async (options, _args, io) => {
    const { run, label, uses, expires = 7 * 86_400_000, page } = options;
    if (run !== undefined && !idSchema.safeParse(run).success) throw new UsageError(`--run: "${run}" is no such name.`);
    await withAdmin(options, openPasswords(io.signal), async (client, origin) => {
      const wish = { runId: run ?? null, label, maxUses: uses, expiresInMs: expires };
      const made = await client.request('admin:invite-create', wish);
      const base = (page ?? origin).replace(/\/+$/, '');
      const link = `${base}/${run === undefined ? '' : `?run=${run}`}#invite=${made.token}`;
      io.result({ ...made, link }, () =>
        [
          link,
          `Lets in ${uses} until ${made.invite.expiresAt}. Take it back: weft invite revoke ${made.invite.inviteId}`,
        ].join('\n'),
      );
    });
  });

  action<ServerChoice>(
    withServer(invite.command('list').description('List the invites and what became of them.')),
    async (options, _args, io) => {
      const { invites } = await withAdmin(options, openPasswords(io.signal), (client) =>
        client.request('admin:invites', {}),
      );
      io.result({ invites }, () =>
        invites.length === 0
          ? 'There are no invites.'
          : table([
              ['invite', 'run', 'label', 'uses', 'state', 'until', 'by'],
              ...invites.map((each) => [
                each.inviteId,
                each.runId ?? 'all',
                each.label,
                `${each.uses}/${each.maxUses}`,
                stateOf(each),
                each.expiresAt,
                each.createdBy,
              ]),
            ]),
      );
    },
  );

  action<ServerChoice>(
    withServer(
      invite
        .command('revoke')
        .description('Take an invite back; whom it let in comes in no more.')
        .argument('<invite>', 'its id, from weft invite list'),
    ),
    async (options, [inviteId = ''], io) => {
      if (!idSchema.safeParse(inviteId).success) throw new UsageError(`"${inviteId}" is no id of an invite.`);
      const revoked = await withAdmin(options, openPasswords(io.signal), (client) =>
        client.request('admin:invite-revoke', { inviteId }),
      );
      io.result(revoked, () => `The invite ${revoked.inviteId} is taken back.`);
    },
  );
};
