// `npm run chaos`: what happens to a run whose server is killed, and to the round machine under any order of events.
import { TrialProgram } from './program.ts';

const program = new TrialProgram('chaos', 'Kill the server, shuffle its events; nothing acknowledged may be lost.');
await program.run(process.argv.slice(2));
