import { ProtocolError } from '@weft/protocol';
import { describe, expect, it } from 'vitest';
import { Pace, type PaceRules } from './pressure.ts';

const RULES: PaceRules = {
  fastest: 100,
  slowest: 10,
  burst: 50,
  lateMs: 100,
  handshakes: 2,
  longestMs: 30_000,
};

function bench() {
  let now = 0;
  const pace = new Pace(
    RULES,
    () => now,
    () => 0,
  );
  /** Milliseconds to wait; null when taken. */
  const wait = (): number | null => {
    try {
      pace.take();
      return null;
    } catch (error) {
      if (!(error instanceof ProtocolError) || error.code !== 'overloaded') throw error;
      return error.retryAfterMs ?? Number.NaN;
    }
  };
  const pass = (ms: number) => {
    now += ms;
  };
  return { pace, wait, pass, now: () => now };
}

describe('the pace of admissions', () => {
  it('takes a burst at once and gives those beyond it moments of their own, one after the other', () => {
    const { wait } = bench();
    const answers = Array.from({ length: 150 }, wait);
    expect(answers.filter((answer) => answer === null)).toHaveLength(50);
    const waits = answers.filter((answer) => answer !== null);
    // 100 a second: the last of 100 comes a second later, nobody sooner than a quarter of one.
    expect(waits.at(-1)).toBe(1000);
    expect(Math.min(...waits)).toBe(250);
    expect([...waits].sort((a, b) => a - b)).toEqual(waits);
  });

  it('has everybody in when ten thousand come at once, at the pace it is set to', () => {
    const { wait, pass, now } = bench();
    let coming = Array.from({ length: 10_000 }, () => 0);
    let admitted = 0;
    while (coming.length > 0) {
      const later: number[] = [];
      for (const at of coming) {
        if (at > now()) {
          later.push(at);
          continue;
        }
        const ms = wait();
        if (ms === null) admitted += 1;
        else later.push(now() + ms);
      }
      coming = later;
      pass(100);
    }
    expect(admitted).toBe(10_000);
    // 9,950 at 100 a second, and little more.
    expect(now()).toBeGreaterThan(99_000);
    expect(now()).toBeLessThan(115_000);
  });

  it('falls while the event loop is late, never to nothing, and recovers', () => {
    const { pace } = bench();
    for (let i = 0; i < 10; i++) pace.loopWasLate(400);
    expect(pace.perSecond).toBe(10);
    for (let i = 0; i < 10; i++) pace.loopWasLate(5);
    expect(pace.perSecond).toBe(100);
  });

  it('tells nobody to wait longer than it may', () => {
    const { pace, wait } = bench();
    for (let i = 0; i < 10; i++) pace.loopWasLate(400);
    const waits = Array.from({ length: 5_000 }, wait).filter((answer) => answer !== null);
    expect(Math.max(...waits)).toBe(30_000);
  });

  it('checks only so many handshakes at a time', async () => {
    const { pace } = bench();
    const letGo: (() => void)[] = [];
    const slow = () => new Promise<void>((resolve) => letGo.push(resolve));
    const both = [pace.check(slow), pace.check(slow)];
    await expect(pace.check(slow)).rejects.toMatchObject({ code: 'overloaded' });
    for (const release of letGo) release();
    await Promise.all(both);
    await expect(pace.check(async () => 'checked')).resolves.toBe('checked');
  });
});
