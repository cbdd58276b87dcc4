// README.md of an adapter folder, as PEFT and model hubs read it: front matter for machines, then a table and sections for people.
// What is said comes from the caller; what stands in the adapter itself (ranks, alphas, targets) is read from it.
import type { LoraAdapter } from './peft.ts';

export interface CardSection {
  readonly title: string;
  /** Markdown. */
  readonly lines: readonly string[];
}

export interface ModelCard {
  readonly title: string;
  /** How the adapter came about, in a sentence or two. */
  readonly summary: string;
  readonly adapter: LoraAdapter;
  /** The base model's licence: a hub's identifier, such as apache-2.0, or words. */
  readonly licence?: string;
  /** Besides `lora` and `weft`. */
  readonly tags?: readonly string[];
  readonly data?: {
    readonly tasks?: readonly string[];
    readonly rows?: number;
    /** Rows cut to the sequence length. */
    readonly truncatedRows?: number;
    /** Labelled target tokens that were trained on. */
    readonly targetTokens?: number;
  };
  readonly training?: {
    readonly steps?: number;
    /** Rows a step. */
    readonly batch?: number;
    readonly optimizer?: string;
    readonly learningRate?: number;
    /** Nats per labelled token, of the last step. */
    readonly finalLoss?: number;
  };
  readonly federation?: {
    readonly strategy: string;
    /** Merged rounds. */
    readonly rounds?: number;
    readonly contributors?: number;
    readonly updates?: number;
  };
  /** Loss on rows that were held out, nats per labelled token, by task. */
  readonly heldOutLoss?: Readonly<Record<string, number>>;
  /** Further rows of the table. */
  readonly facts?: readonly (readonly [label: string, value: string])[];
  readonly sections?: readonly CardSection[];
}

const oneLine = (text: string): string => text.replace(/\s+/g, ' ').trim();
const cell = (text: string): string => oneLine(text).replaceAll('|', '\\|');

/** Plain where YAML cannot take it for anything else. JSON's strings are YAML's. */
const yaml = (text: string): string =>
  /^[a-z][\w./-]*$/i.test(text) && !/^(true|false|yes|no|on|off|null|y|n)$/i.test(text) ? text : JSON.stringify(text);

const HUB_LICENCE = /^[a-z0-9][a-z0-9.-]*$/;

function frontMatter({ adapter, licence, tags = [] }: ModelCard): string[] {
  const licences =
    licence === undefined
      ? []
      : HUB_LICENCE.test(licence)
        ? [`license: ${yaml(licence)}`]
        : ['license: other', `license_name: ${yaml(oneLine(licence))}`];
  const all = [...new Set(['lora', 'weft', ...tags])];
  return [
    '---',
    ...(adapter.baseModel === '' ? [] : [`base_model: ${yaml(oneLine(adapter.baseModel))}`]),
    'library_name: peft',
    'pipeline_tag: text-generation',
    ...licences,
    'tags:',
    ...all.map((tag) => `- ${yaml(oneLine(tag))}`),
    '---',
  ];
}

const distinct = <T>(values: readonly T[]): T[] => [...new Set(values)];
const numbers = (values: readonly number[]): string =>
  distinct(values)
    .sort((a, b) => a - b)
    .map((value) => String(Number(value.toPrecision(6))))
    .join(', ');

const counted = (count: number | undefined, one: string, many = `${one}s`): string[] =>
  count === undefined ? [] : [`${count} ${count === 1 ? one : many}`];

function rowsOf({ adapter, licence, data, training, federation, facts = [] }: ModelCard): [string, string][] {
  const matrices = [...adapter.matrices.values()];
  const targets = distinct(matrices.map(({ module }) => module.slice(module.lastIndexOf('.') + 1)));
  const base = adapter.baseModel === '' ? 'not named' : adapter.baseModel;
  const { dropout = 0 } = adapter;
  const rows: [string, string[]][] = [
    ['base model', [base, ...(licence === undefined ? [] : [`licence: ${licence}`])]],
    [
      'LoRA',
      [
        `rank ${numbers(matrices.map(({ rank }) => rank))}`,
        `alpha ${numbers(matrices.map(({ alpha }) => alpha))}`,
        ...(adapter.rslora ? ['rank-stabilised (use_rslora)'] : []),
        ...(dropout > 0 ? [`dropout ${dropout}`] : []),
      ],
    ],
    ['adapted', targets],
    ['merging', federation ? [federation.strategy, ...counted(federation.rounds, 'merged round')] : []],
    [
      'contributors',
      federation ? [...counted(federation.contributors, 'device'), ...counted(federation.updates, 'update')] : [],
    ],
    [
      'training',
      training
        ? [
            ...counted(training.steps, 'step'),
            ...(training.batch === undefined ? [] : [`${training.batch} rows a step`]),
            ...(training.optimizer === undefined ? [] : [training.optimizer]),
            ...(training.learningRate === undefined ? [] : [`learning rate ${training.learningRate}`]),
          ]
        : [],
    ],
    [
      'last training loss',
      training?.finalLoss === undefined ? [] : [`${training.finalLoss.toFixed(4)} nats per labelled token`],
    ],
    [
      'data',
      data
        ? [
            ...(data.tasks ?? []),
            ...counted(data.rows, 'row'),
            ...counted(data.truncatedRows, 'row cut', 'rows cut').map((text) => `${text} to the sequence length`),
            ...counted(data.targetTokens, 'labelled token'),
          ]
        : [],
    ],
    ...facts.map(([label, value]): [string, string[]] => [label, [value]]),
  ];
  return rows.filter(([, parts]) => parts.length > 0).map(([label, parts]) => [label, parts.join(', ')]);
}

const tableOf = (head: readonly [string, string], rows: readonly (readonly [string, string])[]): string[] => [
  `| ${head.join(' | ')} |`,
  '| --- | --- |',
  ...rows.map(([label, value]) => `| ${cell(label)} | ${cell(value)} |`),
];

/** The text of README.md. What is left out is not mentioned. */
export function modelCard(card: ModelCard): string {
  const losses = Object.entries(card.heldOutLoss ?? {}).map(([task, loss]) => [task, loss.toFixed(4)] as const);
  const licence = card.licence === undefined ? ["The base model's licence applies to it."] : [];
  return [
    ...frontMatter(card),
    '',
    `# ${oneLine(card.title)}`,
    '',
    [card.summary, ...licence].join(' '),
    '',
    ...tableOf(['', ''], rowsOf(card)),
    '',
    ...(losses.length === 0
      ? []
      : ['Held-out loss, nats per labelled token:', '', ...tableOf(['task', 'loss'], losses), '']),
    ...(card.sections ?? []).flatMap(({ title, lines }) => [`## ${oneLine(title)}`, '', ...lines, '']),
  ].join('\n');
}
