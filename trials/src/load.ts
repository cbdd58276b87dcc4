// `npm run load`: thousands of volunteers, floods, storms and lies against one server on this machine.
import { TrialProgram } from './program.ts';

const program = new TrialProgram('load', 'Thousands of volunteers against one server, over loopback only.');
await program.run(process.argv.slice(2));
