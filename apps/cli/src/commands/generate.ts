// `weft generate`: the likeliest continuation of a prompt.
import { GpuModel, generateGreedy, promptTokens, requireTokenizer } from '@weft/trainer';
import { action, numberOption, UsageError } from '../command.ts';
import { readAdapterFolder, readModelFolder } from '../folders.ts';
import { gpuName, withGpu } from '../gpu.ts';
import type { Register } from '../program.ts';

interface GenerateOptions {
  readonly model: string;
  readonly adapter?: string;
  readonly prompt: string;
  readonly maxTokens: number;
}

export const registerGenerate: Register = (program) => {
  const command = program
    .command('generate')
    .description('Continue a prompt, taking the likeliest token each time.')
    .requiredOption('--model <dir>', 'folder of a Llama-architecture model, as on Hugging Face')
    .option('--adapter <dir>', 'folder of a PEFT LoRA adapter; the bare model without it')
    .requiredOption('--prompt <text>', 'text to continue')
    .option(
      '--max-tokens <n>',
      'tokens to add at most',
      numberOption('--max-tokens', { minimum: 1, integer: true }),
      64,
    );
  action<GenerateOptions>(command, async ({ model: folder, adapter: adapterFolder, prompt, maxTokens }, _args, io) => {
    const model = await readModelFolder(folder);
    const tokenizer = requireTokenizer(model);
    const adapter = adapterFolder === undefined ? null : await readAdapterFolder(adapterFolder);
    await withGpu(async (gpu) => {
      const onGpu = await GpuModel.upload(gpu, model);
      const tokens = promptTokens(onGpu, prompt);
      const { maxPositions } = model.config;
      if (tokens.length === 0)
        throw new UsageError('--prompt is empty, and this model begins with no token of its own.');
      if (tokens.length > maxPositions)
        throw new UsageError(`--prompt has ${tokens.length} tokens; the model's context holds ${maxPositions}.`);
      const shown: number[] = [];
      const generated = await generateGreedy(onGpu, adapter, tokens, {
        maxTokens,
        signal: io.signal,
        onToken: (id) => {
          shown.push(id);
          io.status(tokenizer.decode(shown).replaceAll('\n', ' '));
        },
      });
      // Decoded with the prompt, because the first word's leading space depends on what stands before it.
      const whole = tokenizer.decode([...tokens, ...generated]);
      const head = tokenizer.decode(tokens);
      const text = whole.startsWith(head) ? whole.slice(head.length) : tokenizer.decode(generated);
      io.result({ prompt, text, promptTokens: tokens, tokens: generated, gpu: gpuName(gpu) }, () => whole);
    });
  });
};
