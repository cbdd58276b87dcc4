// How many newcomers the server takes a second. Everyone may connect; who says hello while too many do is told when to come
// back, each at another moment, and the pace falls while the event loop is late. Those already admitted are never slowed.
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import { ProtocolError } from '@weft/protocol';

export interface PaceRules {
  /** Admissions a second while the event loop is on time, and at least. */
  readonly fastest: number;
  readonly slowest: number;
  /** Admissions at once after a quiet time. */
  readonly burst: number;
  /** Mean lateness of the event loop, in milliseconds, from which on the pace falls. */
  readonly lateMs: number;
  /** Handshakes being checked at a time. */
  readonly handshakes: number;
  /** Longest time anybody is told to wait, in milliseconds. */
  readonly longestMs: number;
}

/** An admission costs about a millisecond of a core; half of one is left to those who work. */
export const DEFAULT_PACE: PaceRules = {
  fastest: 500,
  slowest: 50,
  burst: 250,
  lateMs: 100,
  handshakes: 256,
  longestMs: 30_000,
};

const LOOK_EVERY_MS = 500;
const RESOLUTION_MS = 10;

/** The pace itself, without a clock of its own. */
export class Pace {
  readonly #rules: PaceRules;
  readonly #now: () => number;
  readonly #random: () => number;
  #perSecond: number;
  #tokens: number;
  #filledAt: number;
  /** When the last of those who were turned away may come. */
  #nextSlot = 0;
  #checking = 0;
  /** Newcomers told to come back, since the start. */
  turnedAway = 0;

  /** `now`: monotonic milliseconds; `random`: numbers in [0, 1). */
  constructor(rules: PaceRules, now: () => number, random: () => number = Math.random) {
    this.#rules = rules;
    this.#now = now;
    this.#random = random;
    this.#perSecond = rules.fastest;
    this.#tokens = rules.burst;
    this.#filledAt = now();
  }

  /** Admissions a second at present. */
  get perSecond(): number {
    return this.#perSecond;
  }

  /** The event loop was late by so many milliseconds on average: halves the pace, or lets it recover. */
  loopWasLate(ms: number): void {
    const { fastest, slowest, lateMs } = this.#rules;
    this.#fill();
    this.#perSecond = ms > lateMs ? Math.max(slowest, this.#perSecond / 2) : Math.min(fastest, this.#perSecond * 1.5);
  }

  #fill(): void {
    const now = this.#now();
    const gained = ((now - this.#filledAt) / 1000) * this.#perSecond;
    this.#tokens = Math.min(this.#rules.burst, this.#tokens + gained);
    this.#filledAt = now;
  }

  /** Takes one newcomer. Throws ProtocolError 'overloaded' with the time to come back. */
  take(): void {
    this.#fill();
    if (this.#tokens < 1) throw this.#comeBack('Many volunteers are arriving at once');
    this.#tokens -= 1;
  }

  /** Runs the check of one handshake, of which only so many go on at a time. Throws ProtocolError 'overloaded'. */
  async check<T>(work: () => Promise<T>): Promise<T> {
    if (this.#checking >= this.#rules.handshakes) throw this.#comeBack('Many handshakes are being checked');
    this.#checking += 1;
    try {
      return await work();
    } finally {
      this.#checking -= 1;
    }
  }

  /** Everybody turned away gets a moment of their own, one after the other at the present pace. */
  #comeBack(why: string): ProtocolError {
    this.turnedAway += 1;
    const now = this.#now();
    const step = 1000 / this.#perSecond;
    this.#nextSlot = Math.min(Math.max(this.#nextSlot, now) + step, now + this.#rules.longestMs);
    const wait = Math.max(250, this.#nextSlot - now);
    return new ProtocolError('overloaded', `${why}; wait and say hello again. Nothing is lost by it.`, {
      retryAfterMs: Math.ceil(wait * (1 + 0.25 * this.#random())),
    });
  }
}

/** A pace that follows this process's event loop until it is closed. */
export class Pressure {
  readonly pace: Pace;
  readonly #delay: IntervalHistogram;
  readonly #timer: NodeJS.Timeout;
  #lateMs = 0;

  constructor(rules: PaceRules, now: () => number) {
    this.pace = new Pace(rules, now);
    this.#delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
    this.#delay.enable();
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
    this.#timer.unref();
  }

  #look(): void {
    // The histogram counts the interval it samples at; what is beyond it is lateness.
    const mean = this.#delay.count > 0 ? this.#delay.mean / 1e6 - RESOLUTION_MS : 0;
    this.#lateMs = Math.max(0, mean);
    this.#delay.reset();
    this.pace.loopWasLate(this.#lateMs);
  }

  /** Mean lateness of the event loop over the last half second, in milliseconds. */
  get lateMs(): number {
    return this.#lateMs;
  }

  close(): void {
    clearInterval(this.#timer);
    this.#delay.disable();
  }
}
