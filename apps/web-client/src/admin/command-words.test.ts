import { type RoundView, runSettingsSchema } from '@weft/protocol';
import { describe, expect, it } from 'vitest';
import { type AskedCommand, COMMANDS, isPossible, minutesIn } from './command-words.ts';
import { lateWorkInWords, roundsInWords } from './settings-words.ts';
import { stagesOf } from './stages.ts';
import { roundOf, runOf } from './testing.ts';

describe('when a command can do something', () => {
  const ALL: readonly AskedCommand[] = ['pause', 'extend', 'close-round', 'abort-round', 'stop'];
  const possible = (state: Parameters<typeof runOf>[0], round: Partial<RoundView>) =>
    ALL.filter((name) => isPossible(name, runOf(state), roundOf(round)));

  it.each([
    ['created', { phase: 'idle', remainingMs: null }, ['stop']],
    ['running', { phase: 'selecting' }, ['pause', 'extend', 'close-round', 'abort-round', 'stop']],
    ['running', { phase: 'training' }, ['pause', 'extend', 'close-round', 'abort-round', 'stop']],
    ['running', { phase: 'merging' }, ['pause', 'extend', 'abort-round', 'stop']],
    ['running', { phase: 'committed' }, ['pause', 'stop']],
    ['paused', { phase: 'training' }, ['extend', 'close-round', 'abort-round', 'stop']],
    ['paused', { phase: 'abandoned', remainingMs: null }, ['stop']],
    ['completed', { phase: 'committed', remainingMs: null }, []],
  ] as const)('in a run that is %s, round %o: %o', (state, round, names) => {
    expect(possible(state, round)).toEqual(names);
  });

  it('is told with the round’s own figures, and what loses work says so', () => {
    const round = roundOf({ round: 4, uploaded: 1, minimum: 3, training: 2, phase: 'training' });
    const about = (name: AskedCommand) => COMMANDS[name].about(runOf('running'), round);
    expect(about('close-round')).toContain('1 upload, of which 3 are needed');
    expect(about('abort-round')).toContain('1 upload and the work of 2 devices in training are dropped');
    expect(COMMANDS['close-round'].about(runOf('running', { mode: 'buffered' }), round)).toContain('merged later');
    expect(Object.values(COMMANDS).filter((words) => words.losesWork)).toHaveLength(2);
  });
});

it.each([
  ['5', 300_000],
  [' 0.5 ', 30_000],
  ['1,5', 90_000],
  ['1440', 86_400_000],
  ['', 'A number of minutes is needed here, such as 5.'],
  ['soon', 'A number of minutes is needed here, such as 5.'],
  ['-3', 'At least one second, which is 0.02 minutes.'],
  ['1441', 'At most 1,440 minutes, which is a day.'],
])('reads “%s” minutes as %o', (text, expected) => {
  expect(minutesIn(text)).toBe(expected);
});

describe('the stages of a round', () => {
  const drawn = (...[run, round, left]: Parameters<typeof stagesOf>) =>
    stagesOf(run, round, left).map(({ words, state, share }) => [words, state, share]);

  it('pass one after another, the one at work filled by its time', () => {
    const run = runOf('running', { trainingMs: 100_000 });
    expect(drawn(run, roundOf({ phase: 'training' }), 25_000)).toEqual([
      ['selecting', 'done', 1],
      ['training', 'now', 0.75],
      ['merging', 'ahead', 0],
      ['committed', 'ahead', 0],
    ]);
    // Extended beyond the settings' time there is more left than there was in all.
    expect(drawn(run, roundOf({ phase: 'training' }), 150_000)[1]).toEqual(['training', 'now', 0]);
    expect(drawn(run, roundOf({ phase: 'committed' }), null).at(-1)).toEqual(['committed', 'now', 1]);
  });

  it('overlap where the run is buffered', () => {
    const run = { ...runOf('running', { mode: 'buffered', rounds: 4 }), version: 1 };
    const both = roundOf({ phase: 'training', uploaded: 1, goal: 4, mergingRound: 2 });
    expect(drawn(run, both, 1)).toEqual([
      ['training, 1 of 4 in the buffer', 'now', 0.25],
      ['merging round 2', 'now', null],
      ['1 committed', 'ahead', 0.25],
    ]);
    expect(drawn(run, { ...both, mergingRound: null }, 1)[1]).toEqual(['merging', 'ahead', 0]);
    expect(drawn(run, roundOf({ phase: 'merging', goal: 4, uploaded: 4 }), 0).map(([, state]) => state)).toEqual([
      'done',
      'now',
      'ahead',
    ]);
  });
});

it('puts the settings of rounds and late work in words', () => {
  const of = (settings: object) =>
    runSettingsSchema.parse({ name: 'a', purpose: 'b', operator: 'c', ranks: [4], tasks: ['t'], ...settings });
  expect(roundsInWords(of({}))).toBe('10, one after another: goal 4, minimum 3');
  expect(roundsInWords(of({ mode: 'buffered', stratify: true }))).toBe(
    '10, buffered: goal 4, minimum 3, 6 devices at once; places are shared over the ranks',
  );
  expect(lateWorkInWords(of({}))).toBe('taken for 30 s; weighed n·(1 + τ)^−0.5, up to 10 versions old');
  expect(lateWorkInWords(of({ lateMs: 0, stalenessPower: 0, maxStaleness: 1 }))).toBe(
    'not taken; counted like fresh work, up to 1 version old',
  );
});
