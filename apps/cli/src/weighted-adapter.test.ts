import { describe, expect, it } from 'vitest';
import { UsageError } from './command.ts';
import { parseWeightedAdapter, weightsOf } from './weighted-adapter.ts';

const parse = (text: string, ...folders: string[]) => parseWeightedAdapter(text, (path) => folders.includes(path));

describe('parseWeightedAdapter', () => {
  it.each<[string, string[], string, number | null, string | null]>([
    ['a', ['a'], 'a', null, null],
    ['a=10', ['a'], 'a', 10, null],
    ['a=0.5', ['a'], 'a', 0.5, null],
    ['a@s', ['a', 's'], 'a', null, 's'],
    ['a=10@s', ['a', 's'], 'a', 10, 's'],
    // Folders that hold the signs themselves.
    ['a=10', ['a', 'a=10'], 'a=10', null, null],
    ['a@s', ['a', 's', 'a@s'], 'a@s', null, null],
    ['lr=1e-3', ['lr=1e-3'], 'lr=1e-3', null, null],
    ['lr=1e-3=7', ['lr=1e-3'], 'lr=1e-3', 7, null],
    ['run@3/a=10', ['run@3/a'], 'run@3/a', 10, null],
    ['run@3/a=10@run@3/s', ['run@3/a', 'run@3/s'], 'run@3/a', 10, 'run@3/s'],
    ['run@3/a@run@3/s=1', ['run@3/a', 'run@3/s=1'], 'run@3/a', null, 'run@3/s=1'],
    ['x=1@y=2@z', ['x=1@y', 'z'], 'x=1@y', 2, 'z'],
    // What is not there keeps the meaning of its signs, for the error of whoever opens it.
    ['gone', [], 'gone', null, null],
    ['gone=10', [], 'gone', 10, null],
    ['gone=10@s', ['s'], 'gone', 10, 's'],
    ['a=10@gone', ['a'], 'a', 10, 'gone'],
    ['run@3/gone=10', [], 'run@3/gone', 10, null],
  ])('%s where %j exist is %s, weight %s, start %s', (text, folders, path, weight, start) => {
    expect(parse(text, ...folders)).toEqual({ path, weight, start });
  });

  it.each([
    ['a=', /weight of a is ""/],
    ['a=ten', /weight of a is "ten"; write a=WEIGHT/],
    ['a=-1', /weight of a is "-1"/],
    ['a=Infinity', /weight of a is "Infinity"/],
    ['a=ten@s', /weight of a is "ten"/],
    ['a=10@', /ends in @/],
  ])('refuses %s', (text, message) => {
    expect(() => parse(text, 'a', 's')).toThrow(UsageError);
    expect(() => parse(text, 'a', 's')).toThrow(message);
  });
});

describe('weightsOf', () => {
  const adapter = (path: string, weight: number | null) => ({ path, weight, start: null });

  it('is 1 for all where none is given', () => {
    expect(weightsOf([adapter('a', null), adapter('b', null)])).toEqual([1, 1]);
    expect(weightsOf([adapter('a', 0), adapter('b', 250)])).toEqual([0, 250]);
  });

  it('refuses a mixture, and nothing but zeros', () => {
    expect(() => weightsOf([adapter('a', 10), adapter('b', null)])).toThrow(/a has a weight and b has none/);
    expect(() => weightsOf([adapter('a', 0), adapter('b', 0)])).toThrow(/All weights are 0/);
  });
});
