// `weft eval`: held-out loss of a model, with or without an adapter, on a file of rows.
import { encodeRows, evaluateLoss, GpuModel } from '@weft/trainer';
import { action, table } from '../command.ts';
import { readAdapterFolder, readModelFolder, readRows } from '../folders.ts';
import { gpuName, withGpu } from '../gpu.ts';
import type { Register } from '../program.ts';

interface EvalOptions {
  readonly model: string;
  readonly adapter?: string;
  readonly data: string;
}

export const registerEval: Register = (program) => {
  const command = program
    .command('eval')
    .description('Held-out loss: mean cross-entropy of the labelled tokens of a file, in nats per token.')
    .requiredOption('--model <dir>', 'folder of a Llama-architecture model, as on Hugging Face')
    .option('--adapter <dir>', 'folder of a PEFT LoRA adapter; the bare model without it')
    .requiredOption('--data <file>', 'JSONL: {"prompt", "completion"} or {"input_ids", "labels"} a line');
  action<EvalOptions>(command, async (options, _args, io) => {
    const model = await readModelFolder(options.model);
    const adapter = options.adapter === undefined ? null : await readAdapterFolder(options.adapter);
    const rows = encodeRows(await readRows(options.data), model, model.config.maxPositions);
    io.status(`evaluating ${rows.examples.length} rows`);
    await withGpu(async (gpu) => {
      const onGpu = await GpuModel.upload(gpu, model);
      const { loss, targetTokens } = await evaluateLoss(onGpu, adapter, rows.examples, { signal: io.signal });
      const document = {
        loss,
        tokens: targetTokens,
        rows: rows.examples.length,
        truncatedRows: rows.truncated,
        unlabelledRows: rows.unlabelled,
        gpu: gpuName(gpu),
      };
      io.result(document, () =>
        table([
          ['loss (nats/token)', 'tokens', 'rows', 'truncated', 'without labels'],
          [loss.toFixed(4), targetTokens, rows.examples.length, rows.truncated, rows.unlabelled],
        ]),
      );
    });
  });
};
