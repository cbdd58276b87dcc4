// `weft eval`: what a model makes of rows it was not trained on, with or without an adapter: their loss, and where they are
// questions, how many it answers.
import type { DataRow } from '@weft/formats';
import { checkAdapter, encodeRows, evaluateLoss, type HeldOutLoss } from '@weft/trainer';
import { action, table, UsageError } from '../command.ts';
import { readAdapterFolder, readModelFolder, readRows } from '../folders.ts';
import { gpuName, withGpu } from '../gpu.ts';
import {
  count,
  DATA_HELP,
  type DataOptions,
  dataOptions,
  encodingOf,
  formatOf,
  modelOption,
  type WeightOptions,
  weightsOption,
} from '../options.ts';
import type { Register } from '../program.ts';
import { type GenerationScores, scoreGenerated } from './eval/answers.ts';
import { type ChoiceScores, candidatesOfAnswers, readLabels, scoreChoices } from './eval/choices.ts';
import { questionsOf } from './eval/questions.ts';
import { uploadModel } from './train/session.ts';

interface EvalOptions extends WeightOptions, DataOptions {
  readonly model: string;
  readonly adapter?: string;
  readonly data: string;
  readonly limit?: number;
  readonly choices?: boolean;
  readonly labels?: string;
  readonly train?: string;
  readonly generate?: boolean;
  readonly maxTokens: number;
}

const HELP = `
--choices takes the answer to which the model gives the highest probability among a few candidates: the lines of --labels,
or else the different answers of --train, or of --data itself. --generate lets it write, and compares what it wrote, without
the prompt, with the answer of the row: exact match as SQuAD counts it, and ROUGE-L. Beside either stands what one scores
who knows nothing: the most frequent answer of --train for every row, or the question repeated as its answer.

Examples:
  weft eval --model models/mine --adapter adapter --data test.jsonl
  weft eval --model models/mine --adapter adapter --data test.jsonl --choices --train train.jsonl
  weft eval --model models/mine --data test.jsonl --generate --train train.jsonl --max-tokens 32 --limit 50`;

export const registerEval: Register = (program) => {
  const command = program
    .command('eval')
    .description('Loss of the labelled tokens of a file, in nats per token; accuracy of answers chosen or written.');
  modelOption(command)
    .option('--adapter <dir>', 'folder of a PEFT LoRA adapter; the bare model without it')
    .requiredOption('--data <file>', DATA_HELP)
    .option('--limit <n>', 'the first rows only', count('--limit'))
    .option('--choices', 'accuracy of choosing among few answers, by their likelihood')
    .option('--labels <file>', 'the candidates of --choices, one a line')
    .option('--generate', 'exact match and ROUGE-L of generated answers')
    .option('--max-tokens <n>', 'longest generated answer', count('--max-tokens'), 64)
    .option('--train <file>', 'training rows, for candidates and for the most frequent answer as a baseline');
  dataOptions(weightsOption(command)).addHelpText('after', HELP);
  action<EvalOptions>(command, async (options, _args, io) => {
    if (options.labels !== undefined && !options.choices)
      throw new UsageError('--labels are the candidates of --choices; give --choices too.');
    if (options.train !== undefined && !options.choices && !options.generate)
      throw new UsageError('--train is for --choices and --generate; give one of them too.');
    const model = await readModelFolder(options.model, io);
    const adapter = options.adapter === undefined ? null : await readAdapterFolder(options.adapter);
    if (adapter) checkAdapter(model.config, adapter);
    const rows = (await readRows(options.data, formatOf(options))).slice(0, options.limit);
    const encoding = encodingOf(options);
    const encoded = encodeRows(rows, model, model.config.maxPositions, encoding);

    const asked = options.choices || options.generate;
    const ask = (from: readonly DataRow[]) => questionsOf(from, model, encoding);
    const questions = asked ? ask(rows) : [];
    const train = options.train === undefined ? null : ask(await readRows(options.train, formatOf(options)));
    const answers = (train ?? questions).map(({ reference }) => reference);
    const candidates = !options.choices
      ? []
      : options.labels === undefined
        ? candidatesOfAnswers(answers, options.train ?? options.data)
        : await readLabels(options.labels);

    await withGpu(async (gpu) => {
      const onGpu = await uploadModel(gpu, model, options, io);
      io.status(`evaluating ${encoded.examples.length} rows`);
      const { signal } = io;
      const held = await evaluateLoss(onGpu, adapter, encoded.examples, { signal });
      const choices = options.choices
        ? await scoreChoices(onGpu, adapter, questions, candidates, { encoding, train, signal })
        : null;
      const generated = options.generate
        ? await scoreGenerated(onGpu, adapter, questions, { maxTokens: options.maxTokens, train }, io)
        : null;
      const document = {
        loss: held.loss,
        tokens: held.targetTokens,
        rows: encoded.examples.length,
        truncatedRows: encoded.truncated,
        unlabelledRows: encoded.unlabelled,
        weights: options.weights,
        ...(choices ? { choices } : {}),
        ...(generated ? { generated } : {}),
        gpu: gpuName(gpu),
      };
      io.result(document, () =>
        [
          lossTable(held, document),
          ...(choices ? [choiceTable(choices)] : []),
          ...(generated ? [generationTable(generated)] : []),
        ].join('\n\n'),
      );
    });
  });
};

const lossTable = (
  { loss, targetTokens }: HeldOutLoss,
  { rows, truncatedRows, unlabelledRows }: { rows: number; truncatedRows: number; unlabelledRows: number },
): string =>
  table([
    ['loss (nats/token)', 'tokens', 'rows', 'truncated', 'without labels'],
    [loss.toFixed(4), targetTokens, rows, truncatedRows, unlabelledRows],
  ]);

function choiceTable({ candidates, unknownAnswers, ...scores }: ChoiceScores): string {
  const unknown =
    unknownAnswers === 0 ? '' : ` The answers of ${unknownAnswers} rows are none of them and count as wrong.`;
  return [
    table([
      [`choosing among ${candidates.length} answers`, 'accuracy (%)'],
      ['by likelihood', scores.accuracy.toFixed(1)],
      ['by likelihood per token', scores.lengthNormalisedAccuracy.toFixed(1)],
      ...(scores.majorityAccuracy === null
        ? []
        : [['most frequent answer of --train', scores.majorityAccuracy.toFixed(1)]]),
    ]),
    `Candidates: ${candidates.join(' | ')}.${unknown}`,
  ].join('\n');
}

function generationTable({ majority, copyInput, shortenedPrompts, ...own }: GenerationScores): string {
  const row = (name: string, scores: { exactMatch: number; rougeL: number }) => [
    name,
    scores.exactMatch.toFixed(1),
    scores.rougeL.toFixed(1),
  ];
  return [
    table([
      [`${own.questions} generated answers`, 'exact match (%)', 'ROUGE-L'],
      row('model', own),
      ...(majority ? [row('most frequent answer of --train', majority)] : []),
      row('the question as its answer', copyInput),
    ]),
    ...(shortenedPrompts === 0
      ? []
      : [`${shortenedPrompts} prompts lost their beginning to leave room for the answer.`]),
  ].join('\n');
}
