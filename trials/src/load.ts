// `npm run load`: thousands of volunteers, floods, storms and lies against one server on this machine.
import { TrialProgram } from './program.ts';
import { connected } from './trials/connected.ts';
import { hostile } from './trials/hostile.ts';
import { ingest } from './trials/ingest.ts';
import { poison } from './trials/poison.ts';
import { storm } from './trials/storm.ts';

const program = new TrialProgram('load', 'Thousands of volunteers against one server, over loopback only.');
program.trial(
  'connected',
  'volunteers connected, admitted and heart-beating; how fast they are answered and what they cost',
  [
    { flags: '--volunteers <n>', help: 'how many', fallback: 10_000 },
    { flags: '--seconds <s>', help: 'how long they stay once all are here', fallback: 300 },
    { flags: '--ramp <s>', help: 'over how long they arrive', fallback: 60 },
  ],
  ({ volunteers = 10_000, seconds = 300, ramp = 60 }, say) => connected({ volunteers, seconds, ramp }, say),
);
program.trial(
  'storm',
  'the server killed and started again under thousands of volunteers: all back, no lease and no round lost',
  [
    { flags: '--volunteers <n>', help: 'how many', fallback: 10_000 },
    { flags: '--ramp <s>', help: 'over how long they arrive', fallback: 60 },
    { flags: '--within <s>', help: 'how soon all must be back', fallback: 60 },
    { flags: '--think <s>', help: 'how long the quickest trains; the slowest twice as long', fallback: 180 },
  ],
  ({ volunteers = 10_000, ramp = 60, within = 60, think = 180 }, say) =>
    storm({ volunteers, ramp, within, think }, say),
);
program.trial(
  'ingest',
  'A round in which every volunteer delivers, beside a bare Socket.IO sink: speed, and what is on disk after a kill.',
  [
    { flags: '--uploads <n>', help: 'volunteers, one upload each', fallback: 1000 },
    { flags: '--turns <n>', help: 'how often sink and server take turns', fallback: 4 },
    { flags: '--processes <n>', help: 'client processes', fallback: 1 },
    { flags: '--at-once <n>', help: 'uploads on their way at the same time', fallback: 64 },
    { flags: '--layers <n>', help: 'layers of the model; SmolLM2-135M has 30', fallback: 30 },
  ],
  ({ uploads = 0, turns = 0, processes = 0, atOnce = 0, layers = 0 }, say) =>
    ingest({ uploads, turns, processes, atOnce, layers }, say),
);
program.trial(
  'hostile',
  'Everything a peer can get wrong or mean ill, with honest volunteers beside.',
  [
    { flags: '--passes <n>', help: 'how often the whole catalogue is gone through', fallback: 5 },
    { flags: '--at-once <n>', help: 'hostile requests and frames at the same time', fallback: 4 },
    { flags: '--before-ms <n>', help: 'milliseconds of honest work alone, to compare with', fallback: 10_000 },
  ],
  ({ passes = 0, atOnce = 0, beforeMs = 0 }, say) => hostile({ passes, atOnce, beforeMs }, say),
);
program.trial(
  'poison',
  'A volunteer that claims 10⁹ tokens: how far it moves the merge.',
  [{ flags: '--honest <n>', help: 'honest volunteers of the large cohort', fallback: 15 }],
  ({ honest = 0 }, say) => poison({ honest }, say),
);
await program.run(process.argv.slice(2));
