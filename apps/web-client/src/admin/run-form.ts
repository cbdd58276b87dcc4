// The new-run form as data: fields with their words and units, text in, settings or messages out. The protocol's schema is
// the only judge of what is valid; this file only says it in the reader's words.
import { PROJECTIONS, type RunSettingsInput, runSettingsSchema } from '@weft/protocol';
import type { z } from 'zod';

type Key = keyof RunSettingsInput;

export interface TextField {
  readonly key: Key;
  readonly label: string;
  readonly hint?: string;
  readonly unit?: string;
  /** May be left empty. */
  readonly optional?: boolean;
  readonly input: 'text' | 'number' | 'seconds' | 'ranks' | 'checkbox' | 'choice' | 'tasks' | 'targets';
  /** Whether the setting means anything with what else is chosen; hidden, it keeps its default. */
  readonly shown?: (values: FormValues) => boolean;
  readonly choices?: readonly (readonly [value: string, label: string])[];
}

export interface Section {
  readonly title: string;
  /** Shut at first: the defaults do for most runs. */
  readonly advanced?: boolean;
  readonly fields: readonly TextField[];
}

const isBuffered = ({ mode }: FormValues): boolean => mode === 'buffered';

export const SECTIONS: readonly Section[] = [
  {
    title: 'What volunteers read',
    fields: [
      { key: 'name', label: 'Name', input: 'text', hint: 'Short; stands in the page’s header.' },
      { key: 'operator', label: 'Run by', input: 'text', hint: 'A person or group they could ask.' },
      { key: 'purpose', label: 'Purpose', input: 'text', hint: 'One sentence: what their work is for.' },
      {
        key: 'admission',
        label: 'Who may take part',
        input: 'choice',
        choices: [
          ['open', 'everyone who has the link'],
          ['invited', 'those with an invite of yours'],
        ],
      },
    ],
  },
  {
    title: 'Data',
    fields: [
      { key: 'tasks', label: 'Tasks', input: 'tasks' },
      {
        key: 'allowOwnFiles',
        label: 'Volunteers may train on a file of their own',
        input: 'checkbox',
        hint: 'The file stays in their tab; their consent is asked. A merge with such an update needs 5 uploads unless the next box is ticked.',
      },
      {
        key: 'smallOwnFileCohorts',
        label: 'Merge fewer than 5 uploads even with own files',
        input: 'checkbox',
        hint: 'Never fewer than 3. The fewer uploads share a merge, the more it tells about each.',
      },
    ],
  },
  {
    title: 'Method',
    fields: [
      {
        key: 'strategy',
        label: 'Merging',
        input: 'choice',
        choices: [
          ['flexlora-carry', 'flexlora-carry: adds the mean change to the global update'],
          [
            'flexlora-frozen-tail',
            'flexlora-frozen-tail: the same, and every device has the whole update while it trains',
          ],
          ['flexlora', 'flexlora: replaces it by the mean product, as in the paper'],
          ['flora', 'flora: stacks all updates; devices start afresh beside them'],
          ['raflora', 'raflora: as flexlora, each rank averaged over those who have it'],
          ['zero-pad', 'zero-pad: mean of factors, short ones padded with zeros'],
          ['hetlora', 'hetlora: as zero-pad, large updates count more'],
          ['fedit', 'fedit: mean of factors, one rank for all'],
          ['ffa', 'ffa: only B is trained; its mean is exact'],
          ['slora', 'slora: sparse rounds first, then as fedit from what they came to'],
        ],
      },
      {
        key: 'ranks',
        label: 'Ranks',
        input: 'ranks',
        hint: 'Ascending, with commas. Each device takes the largest it can carry.',
      },
      {
        key: 'sparseRounds',
        label: 'Sparse rounds',
        input: 'number',
        hint: 'Rounds at the beginning that train a few elements of every matrix; factors start from them. 0 for none.',
      },
      {
        key: 'sparseDensity',
        label: 'Density of sparse rounds',
        input: 'number',
        hint: 'Share of every row’s elements, at most 1.',
      },
    ],
  },
  {
    title: 'Rounds and cohort',
    fields: [
      {
        key: 'mode',
        label: 'How rounds follow each other',
        input: 'choice',
        choices: [
          ['synchronous', 'synchronous: a round selects, trains and is merged before the next one opens'],
          ['buffered', 'buffered: each time the goal is reached what is in is merged, while the others train on'],
        ],
        hint: 'Buffered runs wait for nobody; they take strategies that merge work of an older version.',
      },
      { key: 'rounds', label: 'Rounds', input: 'number' },
      { key: 'goal', label: 'Goal', unit: 'uploads', input: 'number', hint: 'Training ends when so many are in.' },
      { key: 'minimum', label: 'Minimum', unit: 'uploads', input: 'number', hint: 'Below it a round is abandoned.' },
      {
        key: 'selectionMs',
        label: 'Selection ends after',
        unit: 's',
        input: 'seconds',
        shown: (values) => !isBuffered(values),
      },
      {
        key: 'trainingMs',
        label: 'Training ends after',
        unit: 's',
        input: 'seconds',
        hint: 'In a buffered run: the time to reach the goal, else the minimum decides.',
      },
      { key: 'mergingMs', label: 'Merging ends after', unit: 's', input: 'seconds' },
      {
        key: 'concurrency',
        label: 'Devices at once',
        unit: 'devices',
        input: 'number',
        optional: true,
        shown: isBuffered,
        hint: 'Who may train at the same time; 1.3 times the goal when empty.',
      },
      {
        key: 'stratify',
        label: 'Share the places over the ranks',
        input: 'checkbox',
        hint: 'So that quick devices cannot take them all. A place nobody of its rank has taken by half of the selection is free for all.',
      },
    ],
  },
  {
    title: 'Late and stale work',
    advanced: true,
    fields: [
      {
        key: 'lateMs',
        label: 'Late work is taken for',
        unit: 's',
        input: 'seconds',
        hint: 'After its round. It is credited, and merged with the next round where the strategy can. 0: not taken.',
      },
      {
        key: 'stalenessPower',
        label: 'Discount of stale work',
        input: 'number',
        hint: 'a of the weight n·(1 + τ)^−a of work that started τ versions ago; 0 counts it like fresh work.',
      },
      {
        key: 'maxStaleness',
        label: 'Oldest work that is merged',
        unit: 'versions old',
        input: 'number',
      },
    ],
  },
  {
    title: 'Training on each device',
    fields: [
      { key: 'localSteps', label: 'Steps a round', input: 'number' },
      { key: 'batchSize', label: 'Batch', unit: 'rows', input: 'number' },
      { key: 'sequenceLength', label: 'Sequence', unit: 'tokens', input: 'number' },
      {
        key: 'optimiser',
        label: 'Optimiser',
        input: 'choice',
        choices: [
          ['adamw', 'AdamW: as FedIT trains'],
          ['sgd', 'SGD: as FedAvg trains, in less memory'],
        ],
        hint: 'SGD wants a rate some hundred times higher, such as 0.3.',
      },
      { key: 'learningRate', label: 'Learning rate', input: 'number' },
      {
        key: 'schedule',
        label: 'Schedule',
        input: 'choice',
        choices: [
          ['constant', 'constant'],
          ['linear', 'linear decay'],
          ['cosine', 'cosine decay'],
        ],
      },
      { key: 'warmupSteps', label: 'Warm-up', unit: 'steps', input: 'number' },
    ],
  },
  {
    title: 'Finer settings',
    advanced: true,
    fields: [
      { key: 'targets', label: 'Adapted matrices', input: 'targets' },
      {
        key: 'baseDtype',
        label: 'Base weights',
        input: 'choice',
        choices: [
          ['f32', '32 bits: as they are'],
          ['f16', '16 bits: half the memory'],
          ['q8', '8 bits: a quarter of the memory'],
          ['q4', '4 bits: a sixth of the memory, losses change most'],
        ],
        hint: 'How every device keeps the frozen weights.',
      },
      { key: 'alphaPerRank', label: 'α per rank', input: 'number', hint: 'The scale α/r, the same at every rank.' },
      { key: 'momentum', label: 'Momentum', input: 'number', hint: 'Of SGD on each device; 0 with AdamW.' },
      { key: 'weightDecay', label: 'Weight decay', input: 'number' },
      {
        key: 'maxGradNorm',
        label: 'Gradient norm limit',
        input: 'number',
        hint: '0 turns clipping off; not with SGD.',
      },
      {
        key: 'maxWeightShare',
        label: 'Largest share of one device',
        input: 'number',
        hint: 'Of a merge, from 8 devices on.',
      },
      {
        key: 'pruneGamma',
        label: 'Pruning, γ',
        input: 'number',
        optional: true,
        hint: 'With hetlora: the part of its rank a device keeps when it prunes; 0.99 when empty, 1 for never.',
      },
      {
        key: 'pruneLambda',
        label: 'Pruning, λ',
        input: 'number',
        optional: true,
        hint: 'With hetlora: how much the loss is penalised for what could be pruned; 0.005 when empty.',
      },
      {
        key: 'serverMomentum',
        label: 'Server momentum',
        input: 'number',
        hint: 'Share of the last step that the next one keeps; where changes are merged. 0 turns it off.',
      },
      {
        key: 'maxChangeNorm',
        label: 'Largest change',
        unit: '× median',
        input: 'number',
        hint: 'Larger changes are clipped to so many times the median of the round; not with zero-pad, hetlora, fedit. 0 clips nothing.',
      },
      {
        key: 'rejectOpposed',
        label: 'Reject opposed changes',
        unit: '× agreement',
        input: 'number',
        hint: 'Quarantines who pulls against the others so many times as strongly as these agree; from 5 uploads on. 0 takes all, 0.75 finds turned-around changes.',
      },
      { key: 'seed', label: 'Seed', input: 'text' },
      {
        key: 'evaluate',
        label: 'Measure held-out loss of every version',
        input: 'checkbox',
        hint: 'Done by weft join --evaluate.',
      },
      {
        key: 'deterministic',
        label: 'Deterministic',
        input: 'checkbox',
        hint: 'For experiments: cohort by seed, merge when all have reported.',
      },
    ],
  },
];

/** What stands in the form: text as typed, ticks, chosen names. */
export type FormValues = Readonly<Record<string, string | boolean | readonly string[]>>;
export type FormErrors = Readonly<Record<string, string>>;

const FIELDS = SECTIONS.flatMap((section) => section.fields);

/** The schema's defaults; what has none is only a place holder. */
const defaults = (): Record<string, unknown> =>
  runSettingsSchema.parse({
    name: 'run',
    purpose: 'purpose',
    operator: 'operator',
    ranks: [4, 8, 16],
    tasks: ['task'],
  });

export const isShown = (field: TextField, values: FormValues): boolean => field.shown?.(values) ?? true;

/** The form as it opens: the schema's defaults, and all tasks there are. */
export function initialValues(tasks: readonly string[]): FormValues {
  const byKey = defaults();
  const written = FIELDS.map((field): [string, string | boolean | readonly string[]] => {
    const value = byKey[field.key];
    switch (field.input) {
      case 'checkbox':
        return [field.key, value === true];
      case 'tasks':
        return [field.key, [...tasks]];
      case 'targets':
        return [field.key, [...PROJECTIONS]];
      case 'ranks':
        return [field.key, (value as number[]).join(', ')];
      case 'seconds':
        return [field.key, String(Number(value) / 1_000)];
      default:
        return [field.key, value === null ? '' : String(value)];
    }
  });
  return { ...Object.fromEntries(written), name: '', purpose: '', operator: '' };
}

function read(field: TextField, value: FormValues[string] | undefined): unknown {
  if (typeof value !== 'string') return value;
  const text = value.trim();
  // NaN fails the schema as "not a number", which is what an empty or garbled field is.
  const number = (part: string) => (part.trim() === '' ? Number.NaN : Number(part));
  switch (field.input) {
    case 'number':
      return field.optional && text === '' ? null : number(text);
    case 'seconds':
      return Math.round(number(text) * 1_000);
    case 'ranks':
      return text === ''
        ? []
        : text
            .split(/[\s,;]+/)
            .filter((part) => part !== '')
            .map(number);
    default:
      return text;
  }
}

/** Settings where the form is right, else a message for each field at fault. */
export function readForm(values: FormValues): { settings: RunSettingsInput } | { errors: FormErrors } {
  const byKey = defaults();
  const given = Object.fromEntries(
    FIELDS.map((field) => [field.key, isShown(field, values) ? read(field, values[field.key]) : byKey[field.key]]),
  );
  const parsed = runSettingsSchema.safeParse(given);
  if (parsed.success) return { settings: parsed.data };
  const errors: Record<string, string> = {};
  for (const issue of parsed.error.issues) {
    const key = String(issue.path[0] ?? 'name');
    const field = FIELDS.find((each) => each.key === key);
    errors[key] ??= explain(issue, field);
  }
  return { errors };
}

function explain(issue: z.core.$ZodIssue, field: TextField | undefined): string {
  const seconds = field?.input === 'seconds';
  const limit = (value: number | bigint) => {
    const plain = seconds ? Number(value) / 1_000 : Number(value);
    return `${plain.toLocaleString('en-US')}${field?.unit ? ` ${field.unit}` : ''}`;
  };
  const inList = issue.path.length > 1 || field?.input === 'ranks' ? 'Each rank must be ' : 'Must be ';
  switch (issue.code) {
    case 'invalid_type':
      if (issue.expected === 'int') return `${inList}a whole number.`;
      return field?.input === 'ranks'
        ? 'Whole numbers with commas between them, such as 4, 8, 16.'
        : 'A number is needed here.';
    case 'too_small':
      if (issue.origin === 'string') return 'This must not be empty.';
      if (issue.origin === 'array')
        return field?.input === 'ranks' ? 'At least one rank is needed.' : 'Choose at least one.';
      return issue.inclusive === false
        ? `${inList}more than ${limit(issue.minimum)}.`
        : `${inList}at least ${limit(issue.minimum)}.`;
    case 'too_big':
      if (issue.origin === 'string') return `At most ${Number(issue.maximum)} characters.`;
      if (issue.origin === 'array') return `At most ${Number(issue.maximum)}.`;
      return `${inList}at most ${limit(issue.maximum)}.`;
    case 'custom':
      return `This ${issue.message}.`;
    default:
      return issue.message;
  }
}
