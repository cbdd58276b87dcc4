import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { agreementOf, agreementOfElements, cosinesWithOthers, cosinesWithSum, sumAgreements } from './agreement.ts';
import type { MatrixUpdate } from './spectrum.ts';
import { type Dense, norm, productOf, randomFactors, sum } from './testing/dense.ts';

const inner = (a: Dense, b: Dense) => a.data.reduce((s, value, i) => s + value * (b.data[i] ?? 0), 0);
const changeOf = ({ end, start }: MatrixUpdate): Dense =>
  start
    ? sum([
        [1, productOf(end)],
        [-1, productOf(start)],
      ])
    : productOf(end);

describe('agreementOf', () => {
  it('is what the dense changes have with their weighted sum, whether stacks are narrow or wide', () => {
    const client = fc.record({
      rank: fc.integer({ min: 1, max: 5 }),
      weight: fc.integer({ min: -3, max: 9 }),
      clip: fc.constantFrom(1, 0.25),
      began: fc.boolean(),
    });
    const shapes = fc.constantFrom({ out: 40, in: 31 }, { out: 6, in: 11 });
    fc.assert(
      fc.property(shapes, fc.array(client, { minLength: 1, maxLength: 9 }), (shape, clients) => {
        const updates = clients.map(({ rank, weight, clip, began }, i): MatrixUpdate => {
          const start = began ? randomFactors({ ...shape, rank }, 'start', i) : null;
          return { weight, clip, start, end: randomFactors({ ...shape, rank }, 'end', i) };
        });
        const changes = updates.map(changeOf);
        const whole = sum(changes.map((change, i) => [(clients[i]?.weight ?? 0) * (clients[i]?.clip ?? 1), change]));
        const agreement = agreementOf(updates);
        const scale = changes.reduce((most, change) => most + norm(change) ** 2, 0);
        expect(Math.abs(agreement.sum - norm(whole) ** 2)).toBeLessThan(1e-9 * scale);
        for (const [i, change] of changes.entries()) {
          expect(agreement.own[i]).toBeCloseTo(norm(change) ** 2, 8);
          expect(Math.abs((agreement.withSum[i] ?? Number.NaN) - inner(change, whole))).toBeLessThan(1e-9 * scale);
        }
      }),
      { numRuns: 40 },
    );
  });

  it('tells a small change of large weights as exactly as a large one, and none at all as 0', () => {
    const start = randomFactors({ out: 20, in: 16, rank: 3, wide: true }, 'large');
    const tiny = 1e-9;
    const b = start.b.map((value, i) => value + tiny * ((i % 7) - 3));
    const [moved, still] = [
      { weight: 0.5, start, end: { ...start, b } },
      { weight: 0.5, start, end: start },
    ];
    const direction = { ...start, b: Float64Array.from(start.b, (_, i) => (i % 7) - 3) };
    const { own } = agreementOf([moved, still]);
    expect(Math.sqrt(own[0] ?? 0) / (tiny * norm(productOf(direction)))).toBeCloseTo(1, 6);
    expect(own[1]).toBe(0);
    expect(cosinesWithSum(agreementOf([moved, still]))).toEqual([expect.closeTo(1, 10), null]);
  });
});

describe('cosines', () => {
  const update = (weight: number, ...seed: string[]): MatrixUpdate => ({
    weight,
    start: randomFactors({ out: 12, in: 9, rank: 2 }, 'start', ...seed),
    end: randomFactors({ out: 12, in: 9, rank: 2 }, 'end', ...seed),
  });
  const matrices = ['q', 'k', 'v'];
  const weights = [0.5, 0.3, 0.2];
  const clients = weights.map((weight, i) => matrices.map((module) => update(weight, module, String(i))));
  const agreement = sumAgreements(matrices.map((_, m) => agreementOf(clients.map((each) => each[m] as MatrixUpdate))));
  // Whole adapters as one long column.
  const flat = clients.map((each): Dense => {
    const data = Float64Array.from(each.flatMap((one) => [...changeOf(one).data]));
    return { rows: data.length, cols: 1, data };
  });
  const expected = (a: Dense, b: Dense) => inner(a, b) / (norm(a) * norm(b));

  it('run over all matrices of an adapter, with the sum and with the others', () => {
    const whole = sum(flat.map((change, i) => [weights[i] ?? 0, change]));
    for (const [i, change] of flat.entries()) {
      const others = sum(flat.map((other, j) => [j === i ? 0 : (weights[j] ?? 0), other]));
      expect(cosinesWithSum(agreement)[i]).toBeCloseTo(expected(change, whole), 10);
      expect(cosinesWithOthers(agreement, weights)[i]).toBeCloseTo(expected(change, others), 10);
    }
  });

  it('are not there where nothing is left to compare with', () => {
    const one = agreementOf([update(1, 'alone')]);
    expect(cosinesWithSum(one)).toEqual([expect.closeTo(1, 12)]);
    expect(cosinesWithOthers(one, [1])).toEqual([null]);
    const still = update(0.5, 'still');
    const pair = agreementOf([update(0.5, 'moving'), { ...still, end: still.start ?? still.end }]);
    expect(cosinesWithOthers(pair, [0.5, 0.5])).toEqual([null, null]);
    expect(sumAgreements([])).toEqual({ own: [], withSum: [], sum: 0 });
  });
});

describe('cosinesWithSum', () => {
  const updateOf = (rank: number, weight: number) => ({
    weight,
    end: randomFactors({ out: 12, in: 9, rank }, 'end', rank),
    start: randomFactors({ out: 12, in: 9, rank }, 'start', rank),
  });

  it('is none for all where changes cancel, few or many', () => {
    for (const count of [2, 40]) {
      const both = [
        randomFactors({ out: 12, in: 9, rank: 3 }, 'one'),
        randomFactors({ out: 12, in: 9, rank: 3 }, 'two'),
      ];
      const updates = Array.from({ length: count }, (_, i) => ({
        weight: 1 / count,
        end: both[i % 2] as (typeof both)[0],
        start: both[1 - (i % 2)] as (typeof both)[0],
      }));
      expect(cosinesWithSum(agreementOf(updates))).toEqual(new Array(count).fill(null));
    }
  });

  it('is −1 for the one who pulls the other way and none for the one who did not move', () => {
    const moved = updateOf(3, 0.7);
    const opposite = { weight: 0.2, end: moved.start as typeof moved.end, start: moved.end };
    const still = { weight: 0.1, end: moved.end, start: moved.end };
    const cosines = cosinesWithSum(agreementOf([moved, opposite, still]));
    expect(cosines).toEqual([expect.closeTo(1, 12), expect.closeTo(-1, 12), null]);
  });
});

describe('agreementOfElements', () => {
  it('is what agreementOf says of the same changes as factors', () => {
    // A column of one row: B is the elements, A is 1.
    const size = 30;
    const start = randomFactors({ out: size, in: 1, rank: 1, scale: 1 }, 'start');
    const ones = { ...start, a: Float32Array.of(1) };
    const clients = [0.5, 0.3, 0.2].map((weight, i) => ({
      weight,
      clip: i === 1 ? 0.25 : 1,
      start: ones,
      end: { ...ones, b: randomFactors(start, 'end', i).b },
    }));
    const expected = agreementOf(clients);
    const found = agreementOfElements(
      clients.map(({ weight, clip, end }) => ({ weight, clip, values: end.b })),
      Float64Array.from(ones.b),
    );
    for (const [i, own] of expected.own.entries()) {
      expect(found.own[i]).toBeCloseTo(own, 10);
      expect(found.withSum[i]).toBeCloseTo(expected.withSum[i] ?? Number.NaN, 10);
    }
    expect(found.sum).toBeCloseTo(expected.sum, 10);
    expect(agreementOfElements([], null)).toEqual({ own: [], withSum: [], sum: 0 });
  });
});
