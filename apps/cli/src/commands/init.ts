// `weft init`: a checkpoint of a known shape with random weights, for tests and benchmarks.
import { copyFile, mkdir, readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { CONFIG_FILE, FormatError, parameterCount, parseModelConfig } from '@weft/formats';
import { z } from 'zod';
import { NAMED_SHAPES } from '../checkpoint/named-shapes.ts';
import {
  CHECKPOINT_DTYPES,
  type CheckpointDtype,
  planFiles,
  writeRandomCheckpoint,
} from '../checkpoint/random-checkpoint.ts';
import { action, CommandError, formatBytes, formatMs, type Io, numberOption, table, UsageError } from '../command.ts';
import { requireSpace, systemCode, writeFailure } from '../disk.ts';
import type { Register } from '../program.ts';
import { byteProgress } from '../progress.ts';

interface InitOptions {
  readonly like?: string;
  readonly out?: string;
  readonly seed: number;
  readonly dtype: CheckpointDtype;
  readonly shards: number;
  readonly tokenizer?: string;
  readonly randomBiases?: boolean;
  readonly list?: boolean;
}

const HELP = `
The model computes nonsense, at the cost of the real one: matrices are normal(0, initializer_range), norms 1, biases 0. The
same seed gives the same numbers, however many shards there are. Without --tokenizer the model takes rows of
{"input_ids", "labels"} only.

Examples:
  weft init --list
  weft init --like smollm2-135m --out models/random-135m
  weft init --like models/mine --dtype f32 --shards 2 --tokenizer models/mine --out models/random`;

/** Files of a tokenizer, of which the first must be there. */
const TOKENIZER_FILES = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
] as const;

function dtypeOption(text: string): CheckpointDtype {
  const names = Object.keys(CHECKPOINT_DTYPES) as CheckpointDtype[];
  const found = names.find((name) => name === text);
  if (!found) throw new UsageError(`--dtype is one of ${names.join(', ')}, not "${text}".`);
  return found;
}

export const registerInit: Register = (program) => {
  const command = program
    .command('init')
    .description('Write a checkpoint of a known shape with random weights, for tests and benchmarks.')
    .option('--like <shape>', 'a name of --list, or a model folder whose config.json is copied')
    .option('--out <dir>', 'a new or empty folder for the checkpoint')
    .option('--seed <n>', 'seed of the random numbers', numberOption('--seed', { integer: true }), 0)
    .option('--dtype <type>', 'element type: f32, f16 or bf16', dtypeOption, 'bf16')
    .option('--shards <n>', 'weight files to spread over', numberOption('--shards', { minimum: 1, integer: true }), 1)
    .option('--tokenizer <dir>', 'copy the tokenizer of this model folder')
    .option('--random-biases', 'draw biases like matrices in place of 0')
    .option('--list', 'print the known shapes and stop')
    .addHelpText('after', HELP);
  action<InitOptions>(command, async (options, _args, io) => {
    if (options.list) return list(io);
    if (options.like === undefined) throw new UsageError('Which shape? Give --like NAME (see --list) or --like DIR.');
    if (!options.out) throw new UsageError('Where to? Give --out DIR.');
    await init(options, options.like, resolve(options.out), io);
  });
};

function list(io: Io): void {
  const shapes = NAMED_SHAPES.map(({ name, source, config }) => ({
    name,
    source,
    parameters: parameterCount(parseModelConfig(JSON.stringify(config))),
    config,
  }));
  const millions = (n: number) => (n / 1e6).toFixed(n < 1e7 ? 2 : 0);
  io.result(shapes, () =>
    table([
      ['name', 'shape of', '10⁶ params', 'layers', 'hidden', 'ffn', 'heads', 'kv', 'vocabulary', 'context'],
      ...shapes.map(({ name, source, parameters, config }) => [
        name,
        source,
        millions(parameters),
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.vocab_size,
        config.max_position_embeddings,
      ]),
    ]),
  );
}

async function init(options: InitOptions, like: string, folder: string, io: Io): Promise<void> {
  const began = performance.now();
  const document = await shapeOf(like);
  const config = parseModelConfig(JSON.stringify(document));
  const files = planFiles(config, options.dtype, options.shards);
  const tokenizer = options.tokenizer === undefined ? [] : await tokenizerFiles(options.tokenizer, config.vocabSize);
  await makeEmptyFolder(folder);
  const bytes = files.reduce((sum, { plan }) => sum + plan.size, 0);
  await requireSpace(folder, bytes, 'choose another --out');
  const progress = byteProgress(io, bytes, 'written');
  try {
    const deviation = z.number().positive().catch(0.02).parse(document.initializer_range);
    const { dtype, seed, randomBiases = false } = options;
    const settings = { document, config, deviation, randomBiases, dtype, seed: String(seed) };
    await writeRandomCheckpoint(folder, files, settings, io.signal, progress.advance);
  } finally {
    progress.stop();
  }
  for (const { from, name } of tokenizer) {
    await copyFile(from, join(folder, name)).catch((cause) => {
      throw writeFailure(join(folder, name), cause);
    });
  }
  const milliseconds = performance.now() - began;
  const parameters = parameterCount(config);
  const result = {
    folder,
    like,
    architecture: config.architecture,
    parameters,
    bytes,
    dtype: options.dtype,
    seed: options.seed,
    files: files.map(({ name, plan }) => ({ name, bytes: plan.size })),
    tokenizer: tokenizer.map(({ name }) => name),
    milliseconds,
  };
  io.result(
    result,
    () =>
      `${parameters.toLocaleString('en')} random parameters of the shape ${like} (${formatBytes(bytes)}, ${options.dtype}) are in ${folder} (${formatMs(milliseconds)}).`,
  );
}

/** The config.json of a named shape or of a folder. Throws UsageError, CommandError 'unreadable' or FormatError 'model-config'. */
async function shapeOf(like: string): Promise<Readonly<Record<string, unknown>>> {
  const named = NAMED_SHAPES.find(({ name }) => name === like.toLowerCase());
  if (named) return named.config;
  const path = join(like, CONFIG_FILE);
  const text = await readFile(path, 'utf8').catch((cause) => {
    if (!['ENOENT', 'ENOTDIR'].includes(systemCode(cause) ?? ''))
      throw new CommandError('unreadable', `${path} cannot be read; check that it is a file you may read.`, { cause });
    throw new UsageError(
      `--like ${like} is neither a known shape (${NAMED_SHAPES.map(({ name }) => name).join(', ')}) nor a folder with a ${CONFIG_FILE}.`,
    );
  });
  // Says what is wrong with it, if anything is.
  parseModelConfig(text);
  return z.record(z.string(), z.unknown()).parse(JSON.parse(text));
}

/** A new folder, or an empty one. Throws CommandError 'not-empty', 'disk-full' or 'unwritable'. */
export async function makeEmptyFolder(folder: string): Promise<void> {
  const found = await mkdir(folder, { recursive: true })
    .then(() => readdir(folder))
    .catch((cause) => {
      throw writeFailure(folder, cause);
    });
  if (found.length > 0)
    throw new CommandError('not-empty', `${folder} is not empty (${found[0]}); give --out a new or empty folder.`);
}

const tokenizerSchema = z.object({
  model: z.object({ vocab: z.union([z.record(z.string(), z.int()), z.array(z.unknown())]) }),
  added_tokens: z.array(z.object({ id: z.int() })).default([]),
});

/** The tokenizer's files. Throws CommandError 'no-tokenizer', 'tokenizer-too-large', or FormatError 'model-config'. */
async function tokenizerFiles(folder: string, vocabSize: number): Promise<{ from: string; name: string }[]> {
  const names = await readdir(folder).catch((cause) => {
    throw new CommandError('no-such-folder', `There is no folder ${folder}; --tokenizer takes a model folder.`, {
      cause,
    });
  });
  const [main] = TOKENIZER_FILES;
  if (!names.includes(main))
    throw new CommandError('no-tokenizer', `${folder} has no ${main}; leave --tokenizer out or choose another.`);
  const largest = largestToken(await readFile(join(folder, main), 'utf8'), join(folder, main));
  if (largest >= vocabSize) {
    throw new CommandError(
      'tokenizer-too-large',
      `The tokenizer in ${folder} has tokens up to ${largest}, and the shape has embeddings for ${vocabSize}. Choose a smaller tokenizer or a larger shape.`,
    );
  }
  return TOKENIZER_FILES.filter((name) => names.includes(name)).map((name) => ({ from: join(folder, name), name }));
}

function largestToken(text: string, file: string): number {
  let tokenizer: z.infer<typeof tokenizerSchema>;
  try {
    tokenizer = tokenizerSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new FormatError('model-config', `${file} is not a tokenizer as Hugging Face writes it; fetch it again.`, {
      cause,
    });
  }
  const { vocab } = tokenizer.model;
  const ids = Array.isArray(vocab) ? [vocab.length - 1] : Object.values(vocab);
  return [...ids, ...tokenizer.added_tokens.map(({ id }) => id)].reduce((most, id) => Math.max(most, id), 0);
}
