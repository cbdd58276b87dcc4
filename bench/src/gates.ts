// From measurements to the rows of the table: a figure, what it has to reach on this adapter, and whether it does. Pure.
import type { Timing } from './measure.ts';
import type { AdapterClass, Measurement, SuiteResult } from './result.ts';

/** What is to be reached by class of adapter; null where nothing is asked. `aim` is what is hoped for beyond it. */
interface Gate {
  readonly sense: 'at least' | 'at most';
  readonly by: Readonly<Record<AdapterClass, { readonly gate: number; readonly aim?: number } | null>>;
}

/** Of the issue "Fast: the training step close to what the adapter can do". */
export const GATES = {
  matmulShare: {
    sense: 'at least',
    by: { lavapipe: { gate: 30 }, swiftshader: { gate: 50 }, gpu: { gate: 40, aim: 60 } },
  },
  matmulPeer: {
    sense: 'at least',
    by: { lavapipe: { gate: 3.5, aim: 5 }, swiftshader: { gate: 4.5, aim: 6 }, gpu: { gate: 1.5, aim: 3 } },
  },
  stepS15: {
    sense: 'at least',
    by: { lavapipe: { gate: 5, aim: 8 }, swiftshader: { gate: 5, aim: 10 }, gpu: { gate: 3, aim: 8 } },
  },
  stepS026: {
    sense: 'at least',
    by: { lavapipe: { gate: 5 }, swiftshader: { gate: 6, aim: 12 }, gpu: { gate: 3 } },
  },
  mfu: { sense: 'at least', by: { lavapipe: { gate: 20 }, swiftshader: { gate: 35 }, gpu: { gate: 25, aim: 45 } } },
  pointwiseShare: { sense: 'at least', by: { lavapipe: { gate: 60 }, swiftshader: { gate: 60 }, gpu: { gate: 70 } } },
  quantised: { sense: 'at least', by: { lavapipe: { gate: 70 }, swiftshader: { gate: 70 }, gpu: { gate: 90 } } },
  firstStep: { sense: 'at most', by: { lavapipe: { gate: 10 }, swiftshader: { gate: 20 }, gpu: { gate: 3 } } },
  encodeShare: { sense: 'at most', by: { lavapipe: null, swiftshader: null, gpu: { gate: 10 } } },
} as const satisfies Record<string, Gate>;

/** Libraries that compute the same lose no more than this to rounding, nats. */
export const LOSS_TOLERANCE = 1e-3;
/** Steps whose losses agree by chance say little. */
export const LOSS_STEPS = 2;

export type Verdict =
  | { readonly kind: 'pass' }
  /** Nothing is asked of this row here. */
  | { readonly kind: 'none' }
  /** `by` is the measurement that explains the miss, `file#anchor` in docs/benchmarks. */
  | { readonly kind: 'explained'; readonly by: string }
  | { readonly kind: 'missed' }
  /** Wrong or not measured at all; nothing explains that. */
  | { readonly kind: 'failed'; readonly why: string };

export interface Row {
  readonly id: string;
  readonly what: string;
  /** null where it could not be measured. */
  readonly figure: number | null;
  readonly unit: string;
  readonly gate: { readonly sense: Gate['sense']; readonly value: number; readonly aim: number | null } | null;
  readonly verdict: Verdict;
  /** Beside the figure: the times it comes from, and why a peer is missing. */
  readonly note: string;
}

type Ungated = Omit<Row, 'gate' | 'verdict'>;

/** The measurement that explains why a row misses its gate on a class of adapter, or undefined. */
export type Explain = (adapter: AdapterClass, row: string) => string | undefined;

const ms = (value: number): string => `${value >= 100 ? value.toFixed(0) : value.toPrecision(3)} ms`;

function judged(
  row: Ungated,
  gate: { sense: Gate['sense']; gate: number; aim?: number } | null,
  explained: string | undefined,
): Row {
  if (gate === null) return { ...row, gate: null, verdict: { kind: 'none' } };
  const shown = { sense: gate.sense, value: gate.gate, aim: gate.aim ?? null };
  const { figure } = row;
  if (figure === null || Number.isNaN(figure))
    return { ...row, gate: shown, verdict: { kind: 'failed', why: row.note || 'not measured' } };
  const reached = gate.sense === 'at least' ? figure >= gate.gate : figure <= gate.gate;
  const missed: Verdict = explained === undefined ? { kind: 'missed' } : { kind: 'explained', by: explained };
  return { ...row, gate: shown, verdict: reached ? { kind: 'pass' } : missed };
}

interface Parts {
  readonly own: Timing;
  readonly peers: readonly Timing[];
  /** The fastest peer that ran. */
  readonly best: (Timing & { readonly median: number }) | null;
}

function partsOf({ timings }: Measurement): Parts | null {
  const [own, ...peers] = timings;
  if (!own) return null;
  const ran = peers.filter((peer): peer is Timing & { median: number } => peer.median !== null);
  const best = ran.reduce<Parts['best']>((least, peer) => (least && least.median <= peer.median ? least : peer), null);
  return { own, peers, best };
}

const timeNote = (timings: readonly Timing[]): string =>
  timings
    .map(({ name, median, error }) => `${shortName(name)} ${median === null ? `– (${error})` : ms(median)}`)
    .join(', ');

/** Without scope and version. */
const shortName = (name: string): string =>
  name.startsWith('@tensorflow/') ? 'tfjs' : name.startsWith('@jax-js/') ? 'jax-js' : name;

class Table {
  readonly rows: Row[] = [];
  readonly #class: AdapterClass | null;
  readonly #explain: Explain;

  constructor(adapter: AdapterClass | null, explain: Explain) {
    this.#class = adapter;
    this.#explain = explain;
  }

  add(row: Ungated, gate: Gate | null): void {
    const asked = this.#class && gate ? gate.by[this.#class] : null;
    const explained = this.#class ? this.#explain(this.#class, row.id) : undefined;
    this.rows.push(judged(row, asked && gate ? { sense: gate.sense, ...asked } : null, explained));
  }

  /** A gate that is the same everywhere, or depends on what was measured. */
  addAtMost(row: Ungated, most: number): void {
    const explained = this.#class ? this.#explain(this.#class, row.id) : undefined;
    this.rows.push(judged(row, { sense: 'at most', gate: most }, explained));
  }

  failed(row: Ungated, why: string): void {
    this.rows.push({ ...row, gate: null, verdict: { kind: 'failed', why } });
  }
}

/** Our time against that of the better peer, where a peer ran. */
function addPeerRow(table: Table, measurement: Measurement, { own, best, peers }: Parts, gate: Gate | null): void {
  if (peers.length === 0) return;
  const figure = best && own.median ? best.median / own.median : null;
  const row = {
    id: `${measurement.id}/peer`,
    what: `${measurement.what}, against the better peer`,
    figure,
    unit: '×',
    note: timeNote(measurement.timings),
  };
  table.add(row, gate);
}

/** What the peak was while this took turns with it: a machine that is slower for a while is seen by it. Judged is the best. */
const inTurns = (rate: number | undefined, unit: string): string =>
  rate === undefined ? '' : `; the peak in its turns: ${rate.toPrecision(3)} ${unit}`;

/** Of what `rate` (10⁹ a second) allows, in per cent. */
const share = (amount: number, milliseconds: number, rate: number): number =>
  (100 * amount) / (milliseconds * rate * 1e6);

function addStep(table: Table, measurement: Measurement, parts: Parts, peakGflops: number): void {
  const { id, what, facts, flops } = measurement;
  const { own, peers } = parts;
  const time = own.median;
  const note = timeNote(measurement.timings);
  const perSecond = time === null ? null : (1000 * (facts.tokens ?? 0)) / time;
  table.add({ id: `${id}/tokens`, what: `${what}, whole step`, figure: perSecond, unit: 'tokens/s', note }, null);
  addPeerRow(table, measurement, parts, id.includes('s026') ? GATES.stepS026 : GATES.stepS15);
  const { lossGap, lossSteps = 0 } = facts;
  if (lossGap !== undefined) {
    const row = {
      id: `${id}/losses`,
      what: `${what}, greatest difference of a peer's losses from ours`,
      figure: lossGap,
      unit: 'nats',
      note: `${lossSteps} steps in common`,
    };
    // A peer that computes something else is no yardstick.
    if (!(lossGap <= LOSS_TOLERANCE))
      table.failed(row, `more than ${LOSS_TOLERANCE}: the libraries compute different steps`);
    else if (lossSteps < LOSS_STEPS) table.failed(row, `only ${lossSteps} steps were compared`);
    else table.addAtMost(row, LOSS_TOLERANCE);
  } else if (peers.some(({ median }) => median !== null)) {
    table.failed({ id: `${id}/losses`, what, figure: null, unit: 'nats', note: '' }, 'losses were not compared');
  }
  const mfu = time === null ? null : share(flops, time, peakGflops);
  table.add(
    {
      id: `${id}/mfu`,
      what: `${what}, LoRA-MFU`,
      figure: mfu,
      unit: '%',
      note: `${(flops / 1e9).toFixed(2)} GFLOP, ${peakGflops.toPrecision(3)} GFLOP/s at the same time`,
    },
    id.includes('s15') ? GATES.mfu : null,
  );
  const { submits, encodeMs, inspectedMs } = facts;
  if (submits === undefined || encodeMs === undefined || inspectedMs === undefined) return;
  table.addAtMost(
    { id: `${id}/submits`, what: `${what}, submits`, figure: submits, unit: '', note: `a step of ${ms(inspectedMs)}` },
    3 + Math.ceil(inspectedMs / 100),
  );
  table.add(
    {
      id: `${id}/encode`,
      what: `${what}, encoding and submitting`,
      figure: (100 * encodeMs) / inspectedMs,
      unit: '% of the step',
      note: ms(encodeMs),
    },
    GATES.encodeShare,
  );
}

function addPointwise(
  table: Table,
  measurement: Measurement,
  time: number | null,
  { peaks }: SuiteResult,
  gate: Gate | null,
): void {
  const { id, what, bytes, exps, yardsticks } = measurement;
  const copy = bytes / peaks.gigabytes / 1e6;
  const exp = peaks.gigaexps === null ? 0 : exps / peaks.gigaexps / 1e6;
  const isExp = exp > copy;
  const bound = isExp ? 'the exp rate' : 'copying';
  const turns = isExp ? inTurns(yardsticks.exp, 'Gexp/s') : inTurns(yardsticks.copy, 'GB/s');
  table.add(
    {
      id: `${id}/share`,
      what: `${what}, share of what ${bound} allows`,
      figure: time === null ? null : (100 * Math.max(copy, exp)) / time,
      unit: '%',
      note:
        time === null
          ? (measurement.timings[0]?.error ?? '')
          : `${ms(time)}; ${ms(Math.max(copy, exp))} at best${turns}`,
    },
    gate,
  );
}

function addQuantised(table: Table, measurement: Measurement, time: number | null, all: readonly Measurement[]): void {
  const { id, what } = measurement;
  const dash = id.lastIndexOf('-');
  const type = id.slice(dash + 1);
  const plain = all.find((other) => other.id === `${id.slice(0, dash)}-f32`)?.timings[0]?.median;
  const note =
    time === null
      ? (measurement.timings[0]?.error ?? '')
      : plain
        ? `${ms(time)}, f32 ${ms(plain)}`
        : 'no f32 to compare';
  const figure = time !== null && plain ? (100 * plain) / time : null;
  // A half is not asked for: it is a matter of space.
  table.add(
    { id: `${id}/f32`, what: `${what}, of our f32 speed`, figure, unit: '%', note },
    type === 'f16' ? null : GATES.quantised,
  );
}

/** The table of one run. `explain` names the measurement behind a miss. */
export function rowsOf(result: SuiteResult, explain: Explain): Row[] {
  const { peaks, measurements, adapter } = result;
  const table = new Table(adapter.class === 'other-software' ? null : adapter.class, explain);
  const addPeak = (id: string, what: string, figure: number | null, unit: string) => {
    if (figure !== null) table.add({ id: `peak-${id}`, what: `measured peak, ${what}`, figure, unit, note: '' }, null);
  };
  addPeak('f32', 'float32 multiply-adds', peaks.gflops, 'GFLOP/s');
  addPeak('f16', 'float16 multiply-adds', peaks.f16Gflops, 'GFLOP/s');
  addPeak('copy', 'copying, reads and writes', peaks.gigabytes, 'GB/s');
  addPeak('load', 'loads from a cache', peaks.loadGigabytes, 'GB/s');
  addPeak('exp', 'exponentials', peaks.gigaexps, 'Gexp/s');

  for (const measurement of measurements) {
    const parts = partsOf(measurement);
    if (!parts) continue;
    const { id, what, group, flops } = measurement;
    const time = parts.own.median;
    const error = parts.own.error ?? '';
    const shareRow = (): Ungated => ({
      id: `${id}/share`,
      what: `${what}, share of peak`,
      figure: time === null ? null : share(flops, time, peaks.gflops),
      unit: '%',
      note:
        time === null
          ? error
          : `${ms(time)}, ${(flops / time / 1e6).toPrecision(3)} GFLOP/s${inTurns(measurement.yardsticks.f32, 'GFLOP/s')}`,
    });
    switch (group) {
      case 'matmul':
        table.add(shareRow(), GATES.matmulShare);
        addPeerRow(table, measurement, parts, GATES.matmulPeer);
        break;
      case 'ablation':
      case 'model-matmul':
      case 'lora':
      case 'attention':
        table.add(shareRow(), null);
        break;
      case 'quantised':
        if (id.endsWith('-f32')) table.add(shareRow(), null);
        else addQuantised(table, measurement, time, measurements);
        break;
      case 'pointwise':
        addPointwise(table, measurement, time, result, GATES.pointwiseShare);
        break;
      case 'moves':
        addPointwise(table, measurement, time, result, null);
        break;
      case 'decode': {
        const figure = time === null ? null : 1000 / time;
        table.add(
          { id, what: `decoding, ${what}`, figure, unit: 'tokens/s', note: time === null ? error : ms(time) },
          null,
        );
        break;
      }
      case 'step':
        addStep(table, measurement, parts, peaks.gflops);
        break;
      case 'first-step':
        table.add({ id, what, figure: time === null ? null : time / 1000, unit: 's', note: '' }, GATES.firstStep);
        break;
    }
    // A row without a gate fails too where our own kernel did.
    if (time === null && !table.rows.some((row) => row.id.startsWith(id) && row.verdict.kind === 'failed'))
      table.failed({ id, what, figure: null, unit: '', note: '' }, error || 'not measured');
  }
  return table.rows;
}

export interface Summary {
  readonly passed: number;
  readonly explained: number;
  /** Missed without an explanation, or failed. */
  readonly unexplained: number;
}

export function summarise(rows: readonly Row[]): Summary {
  const count = (...kinds: Verdict['kind'][]) => rows.filter(({ verdict }) => kinds.includes(verdict.kind)).length;
  return { passed: count('pass'), explained: count('explained'), unexplained: count('missed', 'failed') };
}

/** 0 where every gate is met or its miss explained, else 1. */
export const exitCodeOf = ({ unexplained }: Summary): 0 | 1 => (unexplained === 0 ? 0 : 1);
