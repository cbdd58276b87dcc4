// `weft join`: a volunteer without a browser, and with --evaluate the operator's evaluator. Both run the session that a
// tab runs; here it gets files, a socket and Dawn, and its snapshots become lines.
import { readFile } from 'node:fs/promises';
import { idSchema, nameSchema, type OwnLimits } from '@weft/protocol';
import {
  EvaluatorSession,
  formatBytes,
  messageOf,
  type SessionData,
  type SessionState,
  statusLine,
  totalsLine,
  VolunteerSession,
} from '@weft/volunteer';
import { action, CommandError, type Io, numberOption, table, UsageError } from '../command.ts';
import { narrate, narrateEvaluator } from '../node-volunteer/narrate.ts';
import { CLIENT, openNodePorts, openNodeTrainer } from '../node-volunteer/ports.ts';
import { keepReceipt } from '../node-volunteer/receipt-folder.ts';
import { checkCertificate, parseServerAddress } from '../node-volunteer/server-address.ts';
import { defaultStateFolder } from '../node-volunteer/state-folder.ts';
import type { Register } from '../program.ts';

export interface JoinOptions {
  readonly data?: string;
  readonly task?: string;
  readonly maxMemory?: number;
  readonly maxRank?: number;
  readonly maxUpload?: number;
  readonly stateDir?: string;
  readonly evaluate?: boolean;
  readonly operatorToken?: string;
  readonly name?: string;
  readonly run?: string;
  readonly rounds?: number;
  readonly invite?: string;
}

/** One delivered round, as the final document lists it. */
interface DeliveredRound {
  readonly round: number;
  readonly rank: number;
  readonly task: string | null;
  readonly steps: number;
  readonly targetTokens: number;
  readonly uploadBytes: number;
  readonly lastLoss: number | null;
  readonly receipt: string;
}

const MB = 1_000_000;

export const registerJoin: Register = (program) => {
  const count = (name: string) => numberOption(name, { minimum: 1, integer: true });
  const megabytes = (name: string) => {
    const parse = numberOption(name);
    return (text: string) => {
      const value = parse(text);
      if (value <= 0) throw new UsageError(`${name} must be more than 0 MB, not ${text}.`);
      return value;
    };
  };
  const command = program
    .command('join')
    .description('Take part in a run as a volunteer, on this machine’s GPU. Ctrl-C gives the place back and ends.')
    .argument('<url>', 'address of the server, or an invite link')
    .option(
      '--data <file>',
      'train on this JSONL file; its rows stay here, by giving it you agree that an update computed from it is sent',
    )
    .option('--task <name>', 'which of the run’s tasks to train on (default: the server’s choice)')
    .option('--max-memory <mb>', 'most GPU memory to use, in MB', megabytes('--max-memory'))
    .option('--max-rank <r>', 'largest rank to train', count('--max-rank'))
    .option('--max-upload <mb>', 'most to send a round, in MB', megabytes('--max-upload'))
    .option('--state-dir <dir>', `folder for key and downloaded files (default: ${defaultStateFolder()})`)
    .option('--name <name>', 'name to show on the operator’s dashboard')
    .option('--run <id>', 'which run to join (default: the newest that is open)')
    .option('--invite <invite>', 'the invite, where the link does not carry it (…#invite=…)')
    .option('--rounds <n>', 'stop after this many delivered rounds', count('--rounds'))
    .option('--evaluate', 'measure committed versions on held-out rows instead of training; for the operator')
    .option(
      '--operator-token <token>',
      'the admin token or an operator’s session token, needed for --evaluate (or WEFT_OPERATOR_TOKEN)',
    );
  action<JoinOptions>(command, async (options, [url = ''], io) => {
    checkOptions(options);
    if (options.evaluate) await evaluate(url, options, io);
    else await volunteer(url, options, io);
  });
};

function checkOptions(options: JoinOptions): void {
  const { evaluate: evaluates = false, data, task, name, run } = options;
  const training = ['data', 'task', 'maxMemory', 'maxRank', 'maxUpload', 'rounds'] as const;
  const stray = training.find((option) => options[option] !== undefined);
  if (evaluates && stray !== undefined) {
    const flag = stray.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    throw new UsageError(`--evaluate measures and does not train; leave --${flag} out.`);
  }
  if (evaluates && tokenOf(options) === undefined) {
    throw new UsageError('--evaluate needs the server’s admin token: --operator-token TOKEN, or WEFT_OPERATOR_TOKEN.');
  }
  if (data !== undefined && task !== undefined) throw new UsageError('Give --data or --task, not both.');
  if (name !== undefined && !nameSchema.safeParse(name).success) throw new UsageError('--name has 1 to 60 characters.');
  for (const [flag, id] of [
    ['--run', run],
    ['--task', task],
  ] as const) {
    if (id !== undefined && !idSchema.safeParse(id).success) throw new UsageError(`${flag}: "${id}" is no such name.`);
  }
}

const tokenOf = (options: JoinOptions): string | undefined => options.operatorToken ?? process.env.WEFT_OPERATOR_TOKEN;

async function dataOf({ data, task }: JoinOptions): Promise<SessionData> {
  if (data === undefined) return { kind: 'task', task: task ?? null };
  try {
    return { kind: 'own', rows: await readFile(data, 'utf8'), consent: true };
  } catch (cause) {
    throw new CommandError('no-such-file', `The data file ${data} cannot be read.`, { cause });
  }
}

const limitsOf = ({ maxMemory, maxRank, maxUpload }: JoinOptions): OwnLimits => ({
  maxMemoryBytes: maxMemory === undefined ? null : maxMemory * MB,
  maxRank: maxRank ?? null,
  maxUploadBytes: maxUpload === undefined ? null : maxUpload * MB,
});

/** Runs a volunteer until the run ends, `options.rounds` are delivered or `io.signal` aborts; reports through `io`. */
export async function volunteer(url: string, options: JoinOptions, io: Io): Promise<void> {
  const address = parseServerAddress(url);
  const data = await dataOf(options);
  if (data.kind === 'own') {
    io.note(
      'Your rows stay on this machine. An update computed from them is sent; parts of a text can sometimes be rebuilt from such updates.',
    );
  }
  await checkCertificate(address.origin);
  const ports = await openPorts(address.origin, options, 'volunteer', io);
  const invite = options.invite ?? address.invite;
  const session = new VolunteerSession({
    ...ports,
    ...(invite === null ? {} : { invite }),
    reopenTrainer: openNodeTrainer,
    client: CLIENT,
    name: options.name ?? null,
    runId: options.run ?? address.runId,
    ownLimits: limitsOf(options),
    data,
  });
  const delivered: DeliveredRound[] = [];
  let before = session.state;
  const unsubscribe = session.subscribe((after) => {
    for (const line of narrate(before, after)) io.note(line);
    const receipt = after.receipts[before.receipts.length];
    if (receipt && after.run) {
      const kept = { receipt, key: after.run.receiptKey, server: address.origin };
      try {
        keepReceipt(options.stateDir ?? defaultStateFolder(), kept);
      } catch (error) {
        io.note(`The receipt could not be kept (${messageOf(error)}). Here it is: ${JSON.stringify(kept)}`);
      }
      delivered.push({
        round: receipt.round,
        rank: after.lease?.grant.rank ?? 0,
        task: after.data.task,
        steps: after.progress?.step ?? 0,
        targetTokens: receipt.targetTokens,
        uploadBytes: receipt.bytes,
        lastLoss: after.losses.at(-1)?.loss ?? null,
        receipt: receipt.receiptId,
      });
    }
    before = after;
    if (isBusy(after)) io.status(statusLine(after));
    if (receipt && after.receipts.length >= (options.rounds ?? Number.POSITIVE_INFINITY)) session.finishRound();
  });
  // Whatever the session cannot tell the server any more, the end of the lease tells it.
  const onAbort = () => {
    io.note('Stopping: the place is given back now, the step in progress ends first. Ctrl-C again ends at once.');
    void session.stop('stopped');
  };
  io.signal.addEventListener('abort', onAbort, { once: true });
  try {
    if (!io.signal.aborted) await session.start();
    unsubscribe();
    report(session.state, delivered, io);
  } finally {
    unsubscribe();
    io.signal.removeEventListener('abort', onAbort);
    await session.close();
    ports.release();
  }
}

const isBusy = ({ stage }: SessionState): boolean =>
  stage === 'downloading' || stage === 'training' || stage === 'uploading' || stage === 'preparing';

function report(state: SessionState, rounds: readonly DeliveredRound[], io: Io): void {
  const { run, clientId, totals, proposal } = state;
  const outcome = state.outcome ?? 'Stopped before the run was joined.';
  const document = {
    run: run ? { id: run.runId, name: run.settings.name, state: run.state, version: run.version } : null,
    clientId,
    rank: proposal?.rank ?? null,
    outcome,
    rounds,
    totals,
  };
  io.result(document, () => {
    if (rounds.length === 0) return outcome;
    const rows = rounds.map((round) => [
      round.round,
      round.rank,
      round.task ?? 'own file',
      round.targetTokens,
      formatBytes(round.uploadBytes),
      round.lastLoss?.toFixed(3) ?? '–',
    ]);
    return `${table([['round', 'rank', 'data', 'tokens', 'sent', 'last loss'], ...rows])}\n\n${totalsLine(state)}. ${outcome}`;
  });
}

/** Measures versions until the run has ended and nothing is left to measure. */
export async function evaluate(url: string, options: JoinOptions, io: Io): Promise<void> {
  const address = parseServerAddress(url);
  const operatorToken = tokenOf(options) ?? '';
  await checkCertificate(address.origin);
  const ports = await openPorts(address.origin, options, 'evaluator', io);
  const session = new EvaluatorSession({
    ...ports,
    client: CLIENT,
    name: options.name ?? null,
    runId: options.run ?? address.runId,
    operatorToken,
  });
  const measured: { version: number; heldOutLoss: Record<string, number> }[] = [];
  session.subscribe((event) => {
    const line = narrateEvaluator(event);
    if (line) io.note(line);
    if (event.kind === 'measured') {
      const heldOutLoss = Object.fromEntries(event.results.map(({ task, loss }) => [task, loss]));
      measured.push({ version: event.version, heldOutLoss });
    }
  });
  try {
    await session.run(io.signal);
  } catch (error) {
    // Being told to stop is how an evaluator usually ends.
    if (!io.signal.aborted) throw error;
  } finally {
    ports.release();
  }
  const tasks = Object.keys(measured[0]?.heldOutLoss ?? {});
  io.result({ measured }, () =>
    measured.length === 0
      ? 'Nothing was left to measure.'
      : table([
          ['version', ...tasks],
          ...measured.map(({ version, heldOutLoss }) => [
            version,
            ...tasks.map((task) => heldOutLoss[task]?.toFixed(3) ?? '–'),
          ]),
        ]),
  );
}

function openPorts(origin: string, options: JoinOptions, role: 'volunteer' | 'evaluator', io: Io) {
  return openNodePorts({
    origin,
    stateDir: options.stateDir ?? defaultStateFolder(),
    role,
    onInvalidNotice: (error) => io.note(`A message of the server could not be read: ${error.message}`),
  });
}
