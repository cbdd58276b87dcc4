// `weft withdraw` and `weft forget`: what a volunteer of `weft join` may ask of its own work, without a GPU and while it goes on.
import { existsSync } from 'node:fs';
import { NAMESPACES } from '@weft/protocol';
import { forgetVolunteer, type LineOptions, socketTransport, systemClock, withdrawUpload } from '@weft/volunteer';
import { io as connect } from 'socket.io-client';
import { action, CommandError, type Io, UsageError } from '../command.ts';
import { openIdentities, removeKey } from '../node-volunteer/keys.ts';
import { CLIENT } from '../node-volunteer/ports.ts';
import { receiptsOf, removeReceipt } from '../node-volunteer/receipt-folder.ts';
import { checkCertificate, parseServerAddress } from '../node-volunteer/server-address.ts';
import { defaultStateFolder } from '../node-volunteer/state-folder.ts';
import type { Register } from '../program.ts';

const PATIENCE_MS = 30_000;

interface RightsOptions {
  readonly stateDir?: string;
  readonly run?: string;
  readonly yes?: boolean;
}

export const registerWithdraw: Register = (program) => {
  const command = program
    .command('withdraw')
    .description(
      'Take back an upload that is not merged yet; the server deletes it. `weft join` prints and keeps receipts.',
    )
    .argument('<url>', 'address of the server')
    .argument('<receipt>', 'id of the upload’s receipt')
    .requiredOption('--run <id>', 'run the receipt is of')
    .option('--state-dir <dir>', `folder with the volunteer’s key (default: ${defaultStateFolder()})`);
  action<RightsOptions>(command, async (options, [url = '', receiptId = ''], io) => {
    const { line, signal } = await open(url, options, io);
    const withdrawnAt = await withdrawUpload(line, receiptId, signal);
    io.result(
      { receiptId, withdrawnAt },
      () => `The upload of receipt ${receiptId} was taken back; the server has deleted it.`,
    );
  });
};

export const registerForget: Register = (program) => {
  const command = program
    .command('forget')
    .description(
      'Have the server forget this volunteer in a run: un-merged work, name, device, raw uploads. Deletes its key and receipts here.',
    )
    .argument('<url>', 'address of the server, or an invite link')
    .option('--run <id>', 'run to be forgotten in (needed where the link names none)')
    .option('--yes', 'do it; there is no way back')
    .option('--state-dir <dir>', `folder with the volunteer’s key (default: ${defaultStateFolder()})`);
  action<RightsOptions>(command, async (options, [url = ''], io) => {
    if (!options.yes) throw new UsageError('This cannot be undone. Add --yes to be forgotten.');
    const { line, folder, runId, signal } = await open(url, options, io);
    const reply = await forgetVolunteer(line, signal);
    for (const { receipt } of receiptsOf(folder, runId)) removeReceipt(folder, receipt.receiptId);
    removeKey(folder, 'volunteer', runId);
    io.result(reply, () =>
      [
        `Forgotten in ${runId}: ${reply.withdrawn} un-merged uploads taken back, ${reply.deleted} raw uploads deleted.`,
        'What stays:',
        ...reply.remains.map((line) => `  ${line}`),
      ].join('\n'),
    );
  });
};

/** What a line to the run needs. Never makes a key: a new one would have nothing to ask for. */
async function open(url: string, options: RightsOptions, io: Io) {
  const address = parseServerAddress(url);
  const runId = options.run ?? address.runId;
  if (runId === null) throw new UsageError('Name the run with --run ID, or paste its invite link.');
  const folder = options.stateDir ?? defaultStateFolder();
  if (!existsSync(folder))
    throw new CommandError('no-key', `${folder} has no volunteer’s key. Choose it with --state-dir.`);
  await checkCertificate(address.origin);
  const clock = systemClock();
  const socket = connect(`${address.origin}${NAMESPACES.volunteer}`, {
    transports: ['websocket', 'polling'],
    tryAllTransports: true,
    reconnection: false,
  });
  const transport = socketTransport(socket, {
    clock,
    onInvalidNotice: (error) => io.note(`A message of the server could not be read: ${error.message}`),
  });
  const line: LineOptions = {
    transport,
    identities: openIdentities(folder, 'volunteer', new Date(), { makes: false }),
    clock,
    random: Math.random,
    hello: { runId, name: null, client: CLIENT, operatorToken: null, invite: null },
  };
  const patience = new AbortController();
  const late = new CommandError('no-answer', `${address.origin} did not answer within ${PATIENCE_MS / 1000} s.`);
  setTimeout(() => patience.abort(late), PATIENCE_MS).unref();
  return { line, folder, runId, signal: AbortSignal.any([io.signal, patience.signal]) };
}
