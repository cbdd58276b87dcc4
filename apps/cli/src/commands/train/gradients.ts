// `weft train --grads`: loss and gradients of a whole file as one padded batch, in order; the door for outside checks.
import { encodeRows, lossAndGradients, writeGradients } from '@weft/trainer';
import { type Io, UsageError } from '../../command.ts';
import { readModelFolder, readRows, writeOutput } from '../../folders.ts';
import { gpuName, withGpu } from '../../gpu.ts';
import { encodingOf, formatOf, stepLimits } from '../../options.ts';
import type { TrainOptions } from './options.ts';
import { uploadModel } from './session.ts';
import { readSides, startAdapter } from './start.ts';

export async function gradientsToFile(options: TrainOptions, file: string, io: Io): Promise<void> {
  const model = await readModelFolder(options.model, io);
  const { maxPositions } = model.config;
  if (options.seq !== undefined && options.seq > maxPositions)
    throw new UsageError(`--seq ${options.seq} is beyond the model's context of ${maxPositions} tokens.`);
  const rows = await readRows(options.data, formatOf(options));
  const { examples, truncated, unlabelled } = encodeRows(rows, model, options.seq ?? maxPositions, encodingOf(options));
  const adapter = await startAdapter(options, model);
  const sides = await readSides(options, model.config);
  const { microBatch, checkpoint } = stepLimits(options, examples.length);
  const step = {
    trainable: options.trainable,
    sides,
    ...(microBatch === undefined ? {} : { microBatch }),
    ...(checkpoint === undefined ? {} : { checkpoint }),
  };
  await withGpu(async (gpu) => {
    const onGpu = await uploadModel(gpu, model, options, io);
    io.status(`gradients of ${examples.length} rows`);
    const result = await lossAndGradients(onGpu, adapter, examples, step);
    await writeOutput(file, writeGradients(result));
    const document = {
      grads: file,
      loss: result.loss,
      rows: examples.length,
      truncatedRows: truncated,
      unlabelledRows: unlabelled,
      targetTokens: examples.reduce((sum, { targets }) => sum + targets, 0),
      gpu: gpuName(gpu),
    };
    io.result(
      document,
      () => `Loss ${result.loss.toFixed(6)} over ${document.targetTokens} labelled tokens; gradients are in ${file}.`,
    );
  });
}
