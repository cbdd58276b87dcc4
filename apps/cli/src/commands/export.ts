// `weft export`: a model with its adapter merged into the weights, as a model folder of its own.
import { checkAdapter } from '@weft/trainer';
import { action, formatBytes, formatMs, table } from '../command.ts';
import { readAdapterFolder, readModelFolder } from '../folders.ts';
import { resolveModel } from '../hub/resolve.ts';
import { choice, modelOption, positive } from '../options.ts';
import type { Register } from '../program.ts';
import { EXPORT_DTYPES, type ExportDtype, exportMerged } from './export/merged-folder.ts';

interface ExportOptions {
  readonly model: string;
  readonly adapter: string;
  readonly out: string;
  readonly dtype?: ExportDtype;
  readonly shardSize: number;
}

const HELP = `
The weights become W + s·B·A, summed in float64 and rounded once. The folder holds what transformers, llama.cpp's converter
and weft itself need: config.json, weights, tokenizer, and a card. The model is never in memory as a whole.

Examples:
  weft export --model models/mine --adapter adapter --out merged
  weft export --model hf:HuggingFaceTB/SmolLM2-135M --adapter adapter --dtype f16 --out merged`;

export const registerExport: Register = (program) => {
  const command = program.command('export').description('Write a model with its adapter merged into the weights.');
  modelOption(command)
    .requiredOption('--adapter <dir>', 'folder of a PEFT LoRA adapter')
    .requiredOption('--out <dir>', 'a new or empty folder for the merged model')
    .option(
      '--dtype <type>',
      `element type: ${Object.keys(EXPORT_DTYPES).join(', ')} (default: each tensor's own)`,
      choice('--dtype', ['f32', 'f16', 'bf16'] as const),
    )
    .option('--shard-size <mb>', 'largest weight file (MB = 10⁶ bytes)', positive('--shard-size'), 5000)
    .addHelpText('after', HELP);
  action<ExportOptions>(command, async (options, _args, io) => {
    const began = performance.now();
    const { folder, name } = await resolveModel(options.model, io);
    const model = await readModelFolder(folder, io);
    const adapter = await readAdapterFolder(options.adapter);
    checkAdapter(model.config, adapter);
    const written = await exportMerged(
      { folder, name, checkpoint: model.checkpoint, adapter, adapterName: options.adapter },
      { out: options.out, dtype: options.dtype ?? null, shardBytes: options.shardSize * 1e6 },
      io,
    );
    const milliseconds = performance.now() - began;
    io.result({ out: options.out, ...written, matrices: adapter.matrices.size, milliseconds }, () =>
      [
        table([['file', 'size'], ...written.files.map(({ name: file, bytes }) => [file, formatBytes(bytes)])]),
        '',
        `${adapter.matrices.size} matrices are merged into ${name}; the model is in ${options.out} (${formatMs(milliseconds)}).`,
      ].join('\n'),
    );
  });
};
