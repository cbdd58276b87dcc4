// `npm run chaos`: what happens to a run whose server is killed, and to the round machine under any order of events.
import { TrialProgram } from './program.ts';
import { kills } from './trials/kills.ts';

const program = new TrialProgram('chaos', 'Kill the server, shuffle its events; nothing acknowledged may be lost.');
program.trial(
  'kills',
  'Kill the server at random moments; look for every receipt, and compare its merges with an uninterrupted run.',
  [
    { flags: '--kills <n>', help: 'how many kills', fallback: 100 },
    { flags: '--seed <n>', help: 'fixes the moments', fallback: 1 },
  ],
  kills,
);
await program.run(process.argv.slice(2));
