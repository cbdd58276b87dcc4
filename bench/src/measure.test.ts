import { describe, expect, it } from 'vitest';
import { type Contender, interleaved, median } from './measure.ts';

const pause = (milliseconds: number) => new Promise<void>((resolve) => setTimeout(resolve, milliseconds));

/** Takes `milliseconds` a run and notes its name for each. */
function sleeper(name: string, milliseconds: number, log: string[]): Contender {
  return {
    name,
    prepare: () =>
      Promise.resolve({
        async run(times: number) {
          log.push(name);
          await pause(times * milliseconds);
        },
        destroy: () => void log.push(`${name} destroyed`),
      }),
  };
}

describe('median', () => {
  it('takes the middle, or the mean of the two in the middle, in whatever order', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([10, 1, 3, 2])).toBe(2.5);
    expect(() => median([])).toThrow(RangeError);
  });
});

describe('interleaved', () => {
  const effort = { rounds: 2, sampleMs: 1, budgetMs: 10_000 };

  it('samples ours before each peer, and destroys all', async () => {
    const log: string[] = [];
    const timings = await interleaved([sleeper('ours', 2, log), sleeper('a', 2, log), sleeper('b', 2, log)], effort);
    // First runs, one more each, then two rounds.
    const round = ['ours', 'a', 'ours', 'b'];
    expect(log).toEqual([
      'ours',
      'a',
      'b',
      'ours',
      'a',
      'b',
      ...round,
      ...round,
      'ours destroyed',
      'a destroyed',
      'b destroyed',
    ]);
    expect(timings.map(({ name, samples }) => [name, samples])).toEqual([
      ['ours', 5],
      ['a', 3],
      ['b', 3],
    ]);
  });

  it('tells the time of one run where a sample has many', async () => {
    const [timing] = await interleaved([sleeper('quick', 2, [])], { ...effort, sampleMs: 20 });
    expect(timing?.median).toBeGreaterThan(1.5);
    expect(timing?.median).toBeLessThan(10);
  });

  it('reports one that fails, at once or later, and goes on with the others', async () => {
    const failing: Contender = { name: 'never', prepare: () => Promise.reject(new Error('no such\n  size')) };
    let runs = 0;
    const tiring: Contender = {
      name: 'tires',
      prepare: () =>
        Promise.resolve({
          run: () => (++runs > 2 ? Promise.reject(new Error('tired')) : pause(1)),
          destroy: () => undefined,
        }),
    };
    const timings = await interleaved([sleeper('ours', 1, []), failing, tiring], effort);
    expect(timings[0]?.median).toBeGreaterThan(0);
    expect(timings[1]).toMatchObject({ median: null, error: 'no such size' });
    expect(timings[2]).toMatchObject({ median: null, error: 'tired' });
  });

  it('does not run what is left out, and says why', async () => {
    const log: string[] = [];
    const timings = await interleaved(
      [sleeper('ours', 1, log), { ...sleeper('slow', 1, log), leftOut: 'takes hours' }],
      effort,
    );
    expect(log).not.toContain('slow');
    expect(timings[1]).toMatchObject({ median: null, error: 'takes hours' });
  });

  it('gives everybody one sample, and no more once the budget is spent', async () => {
    const timings = await interleaved([sleeper('ours', 5, []), sleeper('peer', 5, [])], {
      ...effort,
      rounds: 50,
      budgetMs: 1,
    });
    expect(timings.map(({ samples }) => samples)).toEqual([1, 1]);
  });
});
