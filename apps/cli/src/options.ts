// Options that several commands share, parsed and described once: numbers, how a model is kept, what a step may take, how
// rows are read.
import { type DataFormat, PROJECTIONS, type Projection } from '@weft/formats';
import { type EncodeOptions, WEIGHT_TYPES, type WeightType } from '@weft/trainer';
import type { Command } from 'commander';
import { numberOption, UsageError } from './command.ts';

export const count = (name: string) => numberOption(name, { minimum: 1, integer: true });

/** A number more than 0. */
export function positive(name: string): (text: string) => number {
  const parse = numberOption(name);
  return (text) => {
    const value = parse(text);
    if (value <= 0) throw new UsageError(`${name} must be more than 0, not ${text}.`);
    return value;
  };
}

/** A number from 0 to less than 1, or, where `open`, more than 0. */
export function fraction(name: string, { open = false } = {}): (text: string) => number {
  const parse = numberOption(name);
  return (text) => {
    const value = parse(text);
    if (value < 0 || value >= 1 || (open && value === 0))
      throw new UsageError(`${name} must lie between 0 and 1, not be ${text}.`);
    return value;
  };
}

/** One of some words. */
export function choice<T extends string>(name: string, choices: readonly T[]): (text: string) => T {
  return (text) => {
    const chosen = choices.find((each) => each === text);
    if (chosen === undefined) throw new UsageError(`${name} is one of ${choices.join(', ')}, not "${text}".`);
    return chosen;
  };
}

/** An option given several times. */
export const repeated = (value: string, before: readonly string[] = []): string[] => [...before, value];

/** `KEY=VALUE,KEY=VALUE`; a value may hold `=` but no comma. */
function entries(name: string, text: string): [string, string][] {
  return text.split(',').map((part) => {
    const at = part.indexOf('=');
    const [key, value] = [part.slice(0, at).trim(), part.slice(at + 1).trim()];
    if (at < 1 || key === '' || value === '')
      throw new UsageError(`${name} takes KEY=VALUE, separated by commas; "${part}" is none.`);
    return [key, value];
  });
}

/** PEFT's patterns: numbers by the end of a module's name, a regular expression. */
export function patternOption(
  name: string,
  value: (text: string) => number,
): (text: string) => Readonly<Record<string, number>> {
  return (text) => {
    const pattern = entries(name, text).map(([key, part]) => [key, value(part)] as const);
    for (const [key] of pattern) requireExpression(name, key);
    return Object.fromEntries(pattern);
  };
}

function requireExpression(name: string, key: string): void {
  try {
    new RegExp(key);
  } catch {
    throw new UsageError(`${name}: "${key}" is no regular expression; write the end of a module's name, as q_proj.`);
  }
}

export function targetsOption(text: string): Projection[] {
  const names = text.split(',').map((name) => name.trim());
  const stray = names.find((name) => !PROJECTIONS.some((projection) => projection === name));
  if (stray !== undefined)
    throw new UsageError(`--targets has "${stray}"; choose from ${PROJECTIONS.join(', ')}, separated by commas.`);
  return PROJECTIONS.filter((projection) => names.includes(projection));
}

/** Several whole numbers from 1. */
export function counts(name: string): (text: string) => number[] {
  const parse = count(name);
  return (text) => text.split(',').map((part) => parse(part));
}

export interface WeightOptions {
  readonly weights: WeightType;
}

export const modelOption = (command: Command): Command =>
  command.requiredOption('--model <model>', 'model folder as on Hugging Face, or hf:ORG/NAME[@REV]');

export const weightsOption = (command: Command): Command =>
  command.option(
    '--weights <type>',
    `how the base weights are kept on the GPU: ${WEIGHT_TYPES.join(', ')}`,
    choice('--weights', WEIGHT_TYPES),
    'f32',
  );

export interface MemoryOptions extends WeightOptions {
  /** MB. */
  readonly budget?: number;
  readonly microBatch?: number;
  readonly checkpoint?: boolean;
}

/** How the base weights are kept, and what a step may take. */
export const memoryOptions = (command: Command): Command =>
  weightsOption(command)
    .option(
      '--budget <mb>',
      'GPU memory to stay within, weights included (MB = 10⁶ bytes): the fastest way that fits is taken',
      positive('--budget'),
    )
    .option('--micro-batch <n>', 'rows computed at once, a divisor of --batch', count('--micro-batch'))
    .option('--checkpoint', 'compute activations again in the backward pass instead of keeping them')
    .option('--no-checkpoint', 'keep all activations');

/** What was asked of a step, as the trainer takes it. Throws UsageError when micro-batches do not divide the batch. */
export function stepLimits(
  { budget, microBatch, checkpoint }: MemoryOptions,
  batch: number,
): { budget: number; microBatch?: number; checkpoint?: boolean } {
  if (microBatch !== undefined && batch % microBatch !== 0)
    throw new UsageError(`--micro-batch ${microBatch} does not divide the batch of ${batch} rows.`);
  return {
    budget: budget === undefined ? Number.POSITIVE_INFINITY : budget * 1e6,
    ...(microBatch === undefined ? {} : { microBatch }),
    ...(checkpoint === undefined ? {} : { checkpoint }),
  };
}

export interface DataOptions {
  readonly format?: 'jsonl' | 'csv' | 'text';
  readonly columns?: Readonly<Record<string, string>>;
  readonly instructionTemplate?: string;
}

export const DATA_HELP =
  'JSONL of {"prompt", "completion"}, {"messages"}, {"instruction", "input", "output"}, {"text"} or {"input_ids", "labels"}; CSV; plain text';

export const dataOptions = (command: Command): Command =>
  command
    .option(
      '--format <name>',
      'jsonl, csv or text, where the ending does not tell',
      choice('--format', ['jsonl', 'csv', 'text'] as const),
    )
    .option(
      '--columns <map>',
      'which column or key is which field, as in prompt=question,completion=answer',
      (text: string) => Object.fromEntries(entries('--columns', text)),
    )
    .option('--instruction-template <text>', 'prompt of instruction rows, with {instruction} and {input} (Alpaca’s)');

export const formatOf = ({ format, columns }: DataOptions): DataFormat => ({
  ...(format === undefined ? {} : { format }),
  ...(columns === undefined ? {} : { columns }),
});

export const encodingOf = ({ instructionTemplate }: DataOptions): EncodeOptions => ({ instructionTemplate });
