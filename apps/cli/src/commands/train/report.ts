// What `weft train` says when it is done: one document, the same for readers, and the card of the adapter.
import { type LoraAdapter, modelCard } from '@weft/formats';
import type { MemoryPlan, Optimiser, StepShape, TrainSettings } from '@weft/trainer';
import type { WeightType } from '@weft/wgsl-kernels';
import { formatMs, table } from '../../command.ts';
import type { GpuName } from '../../gpu.ts';
import type { TrainOptions } from './options.ts';
import { describeWay } from './session.ts';

export interface TrainReport {
  /** The folder written. */
  readonly adapter: string;
  /** One number where all matrices agree. */
  readonly rank: number | number[];
  readonly alpha: number | number[];
  readonly targets: readonly string[];
  readonly settings: TrainSettings & StepShape & { readonly optimiser: Optimiser };
  readonly weights: WeightType;
  readonly memory: MemoryPlan;
  /** Examples trained on. */
  readonly rows: number;
  /** Rows of a batch these fill; null where each has its own. */
  readonly packedRows: number | null;
  readonly truncatedRows: number;
  readonly unlabelledRows: number;
  readonly steps: number;
  /** Steps of the snapshot it went on from. */
  readonly resumedAfter: number | null;
  readonly deviceLosses: number;
  readonly targetTokens: number;
  readonly firstLoss: number | undefined;
  readonly lastLoss: number | undefined;
  readonly losses: readonly number[];
  /** Loss on rows that were not trained on, nats per labelled token. */
  readonly heldOut: {
    readonly rows: number;
    readonly duplicates: number;
    readonly before: number;
    readonly after: number;
  } | null;
  readonly tokensPerSecond: number;
  readonly milliseconds: number;
  readonly gpu: GpuName;
}

const loss = (value: number | undefined): string => value?.toFixed(4) ?? '–';

export function reportText(report: TrainReport): string {
  const { heldOut, packedRows, rows, settings } = report;
  const packed =
    packedRows === null ? [] : [`${rows} examples are packed into ${packedRows} rows of ${settings.sequence} tokens.`];
  const measured = heldOut
    ? [
        `Held-out loss of ${heldOut.rows} rows: ${loss(heldOut.before)} before, ${loss(heldOut.after)} after, in nats per token${
          heldOut.duplicates > 0 ? `; ${heldOut.duplicates} duplicate rows are left out of both parts` : ''
        }.`,
      ]
    : [];
  return [
    table([
      ['steps', 'rows', 'truncated', 'first loss', 'last loss', 'tokens/s'],
      [
        report.steps,
        rows,
        report.truncatedRows,
        loss(report.firstLoss),
        loss(report.lastLoss),
        report.tokensPerSecond.toFixed(0),
      ],
    ]),
    [
      ...packed,
      ...measured,
      describeWay(report.memory, settings),
      `The adapter is in ${report.adapter} (${formatMs(report.milliseconds)} on ${report.gpu.name}).`,
    ].join('\n'),
  ].join('\n\n');
}

function optimiserName(optimiser: Optimiser): string {
  if (optimiser.name === 'adamw') return 'AdamW';
  return optimiser.momentum > 0 ? `SGD with momentum ${optimiser.momentum}` : 'SGD';
}

/** README.md of the adapter folder, as model hubs read it. */
export function cardOf(adapter: LoraAdapter, options: TrainOptions, report: TrainReport): string {
  const { heldOut, settings } = report;
  const facts: [string, string][] = [
    ...(options.trainable === 'both' ? [] : [['trained factors', options.trainable] as [string, string]]),
    ...(options.side ? [['trained beside', options.side.join(', ')] as [string, string]] : []),
    ...(options.weights === 'f32' ? [] : [['base weights while training', options.weights] as [string, string]]),
    ...(heldOut
      ? [['held-out loss before', `${loss(heldOut.before)} nats per labelled token`] as [string, string]]
      : []),
  ];
  return modelCard({
    title: 'LoRA adapter',
    summary: 'Trained with `weft train`.',
    adapter,
    data: { rows: report.rows, truncatedRows: report.truncatedRows, targetTokens: report.targetTokens },
    training: {
      steps: report.steps,
      batch: settings.batch,
      optimizer: optimiserName(settings.optimiser),
      learningRate: settings.learningRate,
      ...(report.lastLoss === undefined ? {} : { finalLoss: report.lastLoss }),
    },
    ...(heldOut ? { heldOutLoss: { 'rows kept from training': heldOut.after } } : {}),
    facts,
  });
}
