// `weft generate`: text from a model as it comes, with an adapter, without one, or both from one load.
import {
  type BaseModel,
  chatPromptTokens,
  checkAdapter,
  Decoder,
  type Generated,
  generate,
  requireTokenizer,
  sampler,
} from '@weft/trainer';
import { action, type Io, numberOption, UsageError } from '../command.ts';
import { readAdapterFolder, readModelFolder } from '../folders.ts';
import { gpuName, withGpu } from '../gpu.ts';
import { count, modelOption, positive, repeated, type WeightOptions, weightsOption } from '../options.ts';
import type { Register } from '../program.ts';
import { uploadModel } from './train/session.ts';

interface GenerateOptions extends WeightOptions {
  readonly model: string;
  readonly adapter?: string;
  readonly compare?: boolean;
  readonly prompt: string;
  readonly chat?: boolean;
  readonly system?: string;
  readonly maxTokens: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly seed: number;
  readonly stop?: readonly string[];
  readonly stopToken?: readonly number[];
}

const HELP = `
Without --temperature, --top-k and --top-p the likeliest token is taken each time. The same seed gives the same text.

Examples:
  weft generate --model models/mine --prompt 'Once upon a time'
  weft generate --model hf:HuggingFaceTB/SmolLM2-135M-Instruct --chat --prompt 'Name three rivers.' --temperature 0.7
  weft generate --model models/mine --adapter adapter --compare --prompt 'Q: …' --stop 'Q:'`;

const tokenId = numberOption('--stop-token', { minimum: 0, integer: true });

export const registerGenerate: Register = (program) => {
  const command = program.command('generate').description('Continue a prompt; text is printed as it comes.');
  modelOption(command)
    .option('--adapter <dir>', 'folder of a PEFT LoRA adapter; the bare model without it')
    .option('--compare', 'with --adapter: the text without it, then with it')
    .requiredOption('--prompt <text>', 'text to continue; with --chat, what the user says')
    .option('--chat', 'put the prompt into the model’s chat template')
    .option('--system <text>', 'with --chat: what is said before the user')
    .option('--max-tokens <n>', 'tokens to add at most', count('--max-tokens'), 64)
    .option(
      '--temperature <x>',
      'sample from the probabilities, sharpened below 1, flattened above; 0: the likeliest token',
      numberOption('--temperature', { minimum: 0 }),
    )
    .option('--top-k <n>', 'sample from the n likeliest tokens', count('--top-k'))
    .option('--top-p <p>', 'sample from the likeliest tokens that hold this share of the probability', topP)
    .option('--seed <n>', 'seed of the sampling', numberOption('--seed', { integer: true }), 0)
    .option('--stop <text>', 'end before this text; may be given several times', repeated)
    .option(
      '--stop-token <id>',
      'end at this token; may be given several times',
      (text: string, before: readonly number[] = []) => [...before, tokenId(text)],
    );
  weightsOption(command).addHelpText('after', HELP);
  action<GenerateOptions>(command, async (options, _args, io) => {
    checkOptions(options);
    const model = await readModelFolder(options.model, io);
    const adapter = options.adapter === undefined ? null : await readAdapterFolder(options.adapter);
    if (adapter) checkAdapter(model.config, adapter);
    const prompt = promptOf(options, model);
    await withGpu(async (gpu) => {
      const onGpu = await uploadModel(gpu, model, options, io);
      const capacity = Math.min(model.config.maxPositions, prompt.length + options.maxTokens);
      const decoder = await Decoder.create(onGpu, capacity, adapter);
      const shared = { prompt: options.prompt, promptTokens: prompt, weights: options.weights, gpu: gpuName(gpu) };
      if (!options.compare) {
        const text = await printText(
          decoder,
          prompt,
          options,
          options.chat ? '' : requireTokenizer(model).decode(prompt),
          io,
        );
        io.result({ ...shared, ...text }, () => '');
        return;
      }
      decoder.useAdapter(false);
      const without = await printText(decoder, prompt, options, '── without the adapter ──\n', io);
      decoder.useAdapter(true);
      const withAdapter = await printText(decoder, prompt, options, '\n── with the adapter ──\n', io);
      io.result({ ...shared, without, with: withAdapter }, () => '');
    });
  });
};

function topP(text: string): number {
  const value = positive('--top-p')(text);
  if (value > 1) throw new UsageError(`--top-p must be at most 1, not ${text}.`);
  return value;
}

function checkOptions({ compare, adapter, chat, system }: GenerateOptions): void {
  if (compare && adapter === undefined) throw new UsageError('--compare needs --adapter DIR to compare with.');
  if (system !== undefined && !chat) throw new UsageError('--system is for --chat; give --chat too.');
}

/** Throws UsageError for a prompt that leaves nothing to go on from, or no room to. */
function promptOf({ prompt, chat, system }: GenerateOptions, model: BaseModel): number[] {
  const tokenizer = requireTokenizer(model);
  const messages = [
    ...(system === undefined ? [] : [{ role: 'system', content: system }]),
    { role: 'user', content: prompt },
  ];
  const tokens = chat
    ? chatPromptTokens(tokenizer, messages)
    : [...(tokenizer.bos === null ? [] : [tokenizer.bos]), ...tokenizer.encode(prompt)];
  const { maxPositions } = model.config;
  if (tokens.length === 0) throw new UsageError('--prompt is empty, and this model begins with no token of its own.');
  if (tokens.length > maxPositions)
    throw new UsageError(`--prompt has ${tokens.length} tokens; the model's context holds ${maxPositions}.`);
  return tokens;
}

interface Printed extends Generated {
  /** Milliseconds until the first token: the prompt's, and the driver's own compiling. */
  readonly firstTokenMs: number;
  /** Of the tokens after the first; null when there are none. */
  readonly tokensPerSecond: number | null;
}

/** Prints `heading`, then the text as it comes; its speed goes to stderr. */
async function printText(
  decoder: Decoder,
  prompt: readonly number[],
  options: GenerateOptions,
  heading: string,
  io: Io,
): Promise<Printed> {
  const { topK, topP: share, seed, maxTokens, stop, stopToken } = options;
  const temperature = options.temperature ?? (topK === undefined && share === undefined ? 0 : 1);
  // An empty status takes the last one off the terminal, where the text is about to stand.
  io.status('');
  const say = (text: string) => io.json || process.stdout.write(text);
  say(heading);
  const began = performance.now();
  let first = began;
  let last = began;
  let printed = '';
  const generated = await generate(decoder, prompt, {
    maxTokens,
    sampler: sampler({ temperature, topK, topP: share, seed: String(seed) }),
    stop: { strings: stop, tokens: stopToken },
    signal: io.signal,
    onToken(_id, text) {
      last = performance.now();
      if (first === began) first = last;
      printed += text;
      say(text);
    },
  });
  say(generated.text.slice(printed.length));
  const later = generated.tokens.length - 1;
  const tokensPerSecond = later > 0 ? (1000 * later) / (last - first) : null;
  if (!io.json && tokensPerSecond !== null) io.note(`\n${tokensPerSecond.toFixed(1)} tokens/s`);
  return { ...generated, firstTokenMs: first - began, tokensPerSecond };
}
