// `npm run chaos`: what happens to a run whose server is killed, and to the round machine under any order of events.
import { TrialProgram } from './program.ts';
import { report } from './report.ts';
import { kills } from './trials/kills.ts';
import { schedules } from './trials/schedules.ts';

const program = new TrialProgram('chaos', 'Kill the server, shuffle its events; nothing acknowledged may be lost.');
program.trial(
  'kills',
  'Kill the server at random moments; look for every receipt, and compare its merges with an uninterrupted run.',
  [
    { flags: '--kills <n>', help: 'how many kills', fallback: 100 },
    { flags: '--seed <n>', help: 'fixes the moments', fallback: 1 },
    { flags: '--minutes <n>', help: 'how long it may take at most; kills that do not fit are a miss', fallback: 12 },
  ],
  kills,
);
program.trial(
  'schedules',
  'random schedules of events through the round machine',
  [
    { flags: '--schedules <n>', help: 'how many', fallback: 10_000 },
    { flags: '--seed <n>', help: 'where the schedules are drawn from', fallback: 1 },
  ],
  ({ schedules: count = 0, seed = 0 }, say) => schedules({ schedules: count, seed }, say),
);
program.task(
  'report',
  'Write the results of the long trials into the page beside them.',
  '--out <dir>',
  'folder of <trial>.json and README.md',
  'docs/benchmarks/server',
  (folder) => `Written: ${report(folder)}`,
);
await program.run(process.argv.slice(2));
