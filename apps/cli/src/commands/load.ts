// `weft load`: thousands of protocol-true volunteers against a server of this machine, without a GPU. Each runs the session
// that a tab runs; only the training is made up. For operators who want to know what their server bears.
import { availableParallelism } from 'node:os';
import { idSchema } from '@weft/protocol';
import { action, CommandError, formatBytes, type Io, numberOption, table, UsageError } from '../command.ts';
import { Crews } from '../load/crews.ts';
import type { CrewReport } from '../load/messages.ts';
import {
  checkPlan,
  type LoadPlan,
  type LoadTransport,
  loopbackOrigin,
  MISBEHAVIOURS,
  misbehaviourOf,
  parseMisbehaviour,
  parseRanks,
  parseThink,
} from '../load/plan.ts';
import { Tally } from '../load/tally.ts';
import { type Course, watchLoad } from '../load/watch.ts';
import type { Register } from '../program.ts';

interface LoadOptions {
  readonly volunteers: number;
  readonly processes?: number;
  readonly ramp?: number;
  readonly seconds?: number;
  readonly rounds?: number;
  readonly run?: string;
  readonly ranks?: string;
  readonly think: string;
  readonly misbehave?: string;
  readonly transport: string;
  readonly seed: number;
}

/** A process stays well below the usual limit of 20,000 open files, and below a gigabyte. */
const VOLUNTEERS_A_PROCESS = 5_000;
/** Arrivals a second unless --ramp says otherwise. */
const ARRIVALS_PER_SECOND = 200;

export const registerLoad: Register = (program) => {
  const whole = (name: string) => numberOption(name, { minimum: 1, integer: true });
  const command = program
    .command('load')
    .description('Load a server of this machine with volunteers that keep to the protocol but train nothing.')
    .argument('<url>', 'address of the server: localhost, 127.0.0.1 or [::1]')
    .option('--volunteers <n>', 'how many', whole('--volunteers'), 100)
    .option(
      '--processes <n>',
      'processes they are spread over (default: by cores and volunteers)',
      whole('--processes'),
    )
    .option(
      '--ramp <s>',
      `seconds over which they arrive (default: ${ARRIVALS_PER_SECOND} a second)`,
      numberOption('--ramp', { minimum: 0 }),
    )
    .option('--seconds <s>', 'end so long after all are here', numberOption('--seconds', { minimum: 0 }))
    .option('--rounds <n>', 'end after so many more rounds are committed', whole('--rounds'))
    .option('--run <id>', 'which run to join (default: the newest that is open)')
    .option('--ranks <mix>', 'ranks they propose, with shares: 2:3,4:1 (default: the run’s ranks alike)')
    .option('--think <s>', 'seconds of training, or a range: 2-5', '2-5')
    .option('--misbehave <mix>', `shares that misbehave: drop=0.05,nan=0.01. Kinds: ${MISBEHAVIOURS.join(', ')}`)
    .option('--transport <kind>', 'websocket or polling', 'websocket')
    .option('--seed <n>', 'seeds think times and factors', numberOption('--seed', { integer: true }), 1)
    .addHelpText(
      'after',
      '\nEnds with the run, after --seconds or --rounds, or by Ctrl-C. Exit code 1 when not all honest volunteers were admitted.',
    );
  action<LoadOptions>(command, async (options, [url = ''], io) => {
    const plan = planOf(url, options);
    await load(plan, { seconds: options.seconds ?? null, rounds: options.rounds ?? null }, io);
  });
};

function planOf(url: string, options: LoadOptions): LoadPlan {
  const { volunteers, run, transport } = options;
  const address = loopbackOrigin(url);
  if (run !== undefined && !idSchema.safeParse(run).success) throw new UsageError(`--run: "${run}" is no such name.`);
  const enough = Math.max(availableParallelism(), Math.ceil(volunteers / VOLUNTEERS_A_PROCESS));
  return checkPlan({
    origin: address.origin,
    runId: run ?? address.runId,
    volunteers,
    processes: Math.min(volunteers, options.processes ?? enough),
    ramp: options.ramp ?? volunteers / ARRIVALS_PER_SECOND,
    ranks: parseRanks(options.ranks),
    think: parseThink(options.think),
    misbehave: parseMisbehaviour(options.misbehave),
    transport: transportOf(transport),
    seed: options.seed,
  });
}

function transportOf(text: string): LoadTransport {
  if (text === 'websocket' || text === 'polling') return text;
  throw new UsageError(`--transport is websocket or polling, not "${text}".`);
}

async function load(plan: LoadPlan, ending: Parameters<typeof watchLoad>[3], io: Io): Promise<void> {
  const honest = Array.from({ length: plan.volunteers }, (_, index) => misbehaviourOf(plan, index)).filter(
    (kind) => kind === null,
  ).length;
  io.note(`${plan.volunteers} volunteers in ${plan.processes} processes, over ${plan.ramp} s. Ctrl-C ends it.`);
  const crews = new Crews(plan);
  let course: Course;
  let reports: CrewReport[];
  try {
    course = await watchLoad(crews, plan, honest, ending, io);
  } finally {
    reports = await crews.stop();
  }
  const document = documentOf(plan, honest, course, reports);
  io.result(document, () => textOf(document));
  if (honest > 0 && course.allAfterSeconds === null) {
    process.exitCode = 1;
    io.note(
      `weft load: at most ${course.mostAdmitted} of ${plan.volunteers} volunteers were here at once; the errors above say why.`,
    );
  }
}

export type LoadReport = ReturnType<typeof documentOf>;

function documentOf(plan: LoadPlan, honest: number, course: Course, reports: readonly CrewReport[]) {
  const tally = new Tally();
  for (const report of reports) tally.add(report.tally);
  if (reports.length < plan.processes) {
    throw new CommandError('load-process', 'A load process ended without a report; its volunteers are not counted.');
  }
  return {
    url: plan.origin,
    volunteers: plan.volunteers,
    honest,
    processes: plan.processes,
    transport: plan.transport,
    ...course,
    receipts: tally.receipts,
    uploadBytes: tally.uploadBytes,
    reconnections: tally.reconnections,
    /** Milliseconds between a request and its answer, by event, since all were here. */
    acknowledgements: tally.percentiles(),
    /** By code and message. */
    errors: { honest: tally.honestErrors, misbehaving: tally.misbehavingErrors },
    loadProcesses: reports.map(({ rssBytes, loopDelayP99Ms }) => ({ rssBytes, loopDelayP99Ms })),
  };
}

function textOf(report: LoadReport): string {
  const { acknowledgements, errors } = report;
  const ms = (value: number) => value.toFixed(1);
  const times = Object.entries(acknowledgements).map(([event, { count, p50, p90, p99, p999, max }]) => [
    event,
    count,
    ms(p50),
    ms(p90),
    ms(p99),
    ms(p999),
    ms(max),
  ]);
  const faults = (['honest', 'misbehaving'] as const).flatMap((who) =>
    Object.entries(errors[who])
      .sort(([, a], [, b]) => b - a)
      .map(([what, count]) => [who, what, count]),
  );
  const after = report.allAfterSeconds;
  const facts = [
    `${report.mostAdmitted} of ${report.volunteers} volunteers were here at once${after === null ? '' : `, all honest ones after ${after.toFixed(1)} s`}; ${report.mostLeased} held a lease.`,
    `${report.receipts} uploads (${formatBytes(report.uploadBytes)}) were acknowledged in ${report.rounds} rounds; ${report.reconnections} reconnections.`,
    ...report.outages.map(({ atSeconds, lost, backAfterSeconds }) =>
      backAfterSeconds === null
        ? `At ${atSeconds.toFixed(1)} s ${lost} were lost and not all came back.`
        : `At ${atSeconds.toFixed(1)} s ${lost} were lost; all were back ${backAfterSeconds.toFixed(1)} s later.`,
    ),
  ];
  return [
    ...(times.length > 0
      ? [table([['acknowledgement', 'count', 'p50 ms', 'p90', 'p99', 'p99.9', 'max'], ...times])]
      : []),
    ...(faults.length > 0 ? [table([['volunteers', 'error', 'count'], ...faults])] : []),
    facts.join('\n'),
  ].join('\n\n');
}
