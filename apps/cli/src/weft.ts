#!/usr/bin/env node
// Entry of the `weft` command.
import { registerAdmin } from './commands/admin.ts';
import { registerBackup, registerRestore } from './commands/backup.ts';
import { registerDemo } from './commands/demo.ts';
import { registerDoctor } from './commands/doctor.ts';
import { registerEval } from './commands/eval.ts';
import { registerExport } from './commands/export.ts';
import { registerFleet } from './commands/fleet.ts';
import { registerGenerate } from './commands/generate.ts';
import { registerInit } from './commands/init.ts';
import { registerInvite } from './commands/invite.ts';
import { registerJoin } from './commands/join.ts';
import { registerLoad } from './commands/load.ts';
import { registerMerge } from './commands/merge.ts';
import { registerPreview } from './commands/preview.ts';
import { registerPrune } from './commands/prune.ts';
import { registerPull } from './commands/pull.ts';
import { registerForget, registerWithdraw } from './commands/rights.ts';
import { registerServe } from './commands/serve.ts';
import { registerSimulate } from './commands/simulate.ts';
import { registerTrain } from './commands/train.ts';
import { registerVerify } from './commands/verify.ts';
import { createProgram, type Register, run } from './program.ts';

const registers: Register[] = [
  registerDemo,
  registerServe,
  registerBackup,
  registerRestore,
  registerPrune,
  registerAdmin,
  registerInvite,
  registerJoin,
  registerVerify,
  registerWithdraw,
  registerForget,
  registerFleet,
  registerSimulate,
  registerLoad,
  registerMerge,
  registerPull,
  registerInit,
  registerPreview,
  registerTrain,
  registerEval,
  registerGenerate,
  registerExport,
  registerDoctor,
];

process.exitCode = await run(createProgram(registers, '0.1.0'), process.argv.slice(2));
