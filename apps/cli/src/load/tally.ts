// What a load process counts: times of answers as histograms, errors by code, deliveries. Sums over processes are exact
// because histograms are added, never percentiles.
import { ProtocolError } from '@weft/protocol';
import { codeOf, type RequestName, type Transport } from '@weft/volunteer';
import { build, decodeFromCompressedBase64, encodeIntoCompressedBase64, type Histogram } from 'hdr-histogram-js';

/** Microseconds, to three digits, up to two minutes. */
const newHistogram = (): Histogram =>
  build({
    bitBucketSize: 32,
    autoResize: true,
    lowestDiscernibleValue: 1,
    highestTrackableValue: 120_000_000,
    numberOfSignificantValueDigits: 3,
  });

export type Errors = Record<string, number>;

/** A tally on its way between processes. */
export interface TallyData {
  readonly acks: Readonly<Record<string, string>>;
  readonly honestErrors: Errors;
  readonly misbehavingErrors: Errors;
  readonly receipts: number;
  readonly uploadBytes: number;
  readonly reconnections: number;
}

/** Milliseconds. */
export interface Percentiles {
  readonly count: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

export class Tally {
  readonly #acks = new Map<string, Histogram>();
  readonly #honest: Errors = {};
  readonly #misbehaving: Errors = {};
  receipts = 0;
  uploadBytes = 0;
  reconnections = 0;

  ack(event: string, ms: number): void {
    const known = this.#acks.get(event);
    const histogram = known ?? newHistogram();
    if (!known) this.#acks.set(event, histogram);
    histogram.recordValue(Math.max(1, Math.round(ms * 1000)));
  }

  error(code: string, honest: boolean): void {
    const errors = honest ? this.#honest : this.#misbehaving;
    errors[code] = (errors[code] ?? 0) + 1;
  }

  /** Forgets the times of answers, not what was counted: a steady state is measured apart from the way there. */
  startMeasuring(): void {
    this.#acks.clear();
  }

  add(data: TallyData): void {
    for (const [event, encoded] of Object.entries(data.acks)) {
      const known = this.#acks.get(event);
      const histogram = known ?? newHistogram();
      if (!known) this.#acks.set(event, histogram);
      histogram.add(decodeFromCompressedBase64(encoded));
    }
    for (const [code, count] of Object.entries(data.honestErrors))
      this.#honest[code] = (this.#honest[code] ?? 0) + count;
    for (const [code, count] of Object.entries(data.misbehavingErrors)) {
      this.#misbehaving[code] = (this.#misbehaving[code] ?? 0) + count;
    }
    this.receipts += data.receipts;
    this.uploadBytes += data.uploadBytes;
    this.reconnections += data.reconnections;
  }

  data(): TallyData {
    const { receipts, uploadBytes, reconnections } = this;
    const acks = Object.fromEntries(
      Array.from(this.#acks, ([event, histogram]) => [event, encodeIntoCompressedBase64(histogram)]),
    );
    const errors = { honestErrors: { ...this.#honest }, misbehavingErrors: { ...this.#misbehaving } };
    return { acks, ...errors, receipts, uploadBytes, reconnections };
  }

  /** By event, in alphabetical order. */
  percentiles(): Record<string, Percentiles> {
    const ms = (microseconds: number) => microseconds / 1000;
    return Object.fromEntries(
      [...this.#acks].sort().map(([event, histogram]) => [
        event,
        {
          count: histogram.totalCount,
          p50: ms(histogram.getValueAtPercentile(50)),
          p90: ms(histogram.getValueAtPercentile(90)),
          p99: ms(histogram.getValueAtPercentile(99)),
          p999: ms(histogram.getValueAtPercentile(99.9)),
          max: ms(histogram.maxValue),
        },
      ]),
    );
  }

  get honestErrors(): Readonly<Errors> {
    return this.#honest;
  }

  get misbehavingErrors(): Readonly<Errors> {
    return this.#misbehaving;
  }
}

/** A transport whose answers are timed and whose refusals are counted. */
export function timed(transport: Transport, tally: Tally, honest: boolean): Transport {
  return {
    async request(event, payload) {
      const began = performance.now();
      try {
        const reply = await transport.request(event, payload);
        tally.ack(event, performance.now() - began);
        return reply;
      } catch (error) {
        if (error instanceof ProtocolError) tally.ack(event, performance.now() - began);
        tally.error(`${codeOf(error)} (${event satisfies RequestName})`, honest);
        throw error;
      }
    },
    onNotice: (event, listener) => transport.onNotice(event, listener),
    onConnection: (listener) => transport.onConnection(listener),
    close: () => transport.close(),
  };
}
