// `weft train`: LoRA training of one model on one file, without a server; and with --grads the door for outside checks.
import { action } from '../command.ts';
import type { Register } from '../program.ts';
import { gradientsToFile } from './train/gradients.ts';
import { checkOptions, type TrainOptions, trainOptions } from './train/options.ts';
import { trainToFolder } from './train/run.ts';

export const registerTrain: Register = (program) => {
  const command = program.command('train').description('Train a LoRA adapter on one file, and write it as PEFT does.');
  action<TrainOptions>(trainOptions(command), async (options, _args, io) => {
    checkOptions(options);
    if (options.grads === undefined) await trainToFolder(options, options.out ?? '', io);
    else await gradientsToFile(options, options.grads, io);
  });
};
