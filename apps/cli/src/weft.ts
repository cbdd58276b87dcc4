#!/usr/bin/env node
// Entry of the `weft` command.
import { createProgram, type Register, run } from './program.ts';

const registers: Register[] = [];

process.exitCode = await run(createProgram(registers, '0.1.0'), process.argv.slice(2));
