import { runSettingsSchema } from '@weft/protocol';
import { describe, expect, it } from 'vitest';
import { initialValues, isShown, readForm, SECTIONS } from './run-form.ts';

const good = { ...initialValues(['rooms', 'travel']), name: 'demo', purpose: 'Learn to answer.', operator: 'Ada' };
const errorsOf = (changes: Record<string, string | boolean | string[]>) => {
  const result = readForm({ ...good, ...changes });
  return 'errors' in result ? result.errors : {};
};

describe('the new-run form', () => {
  it('offers every setting of the protocol, once', () => {
    const keys = SECTIONS.flatMap((section) => section.fields.map((field) => field.key));
    expect([...keys].sort()).toEqual(Object.keys(runSettingsSchema.shape).sort());
  });

  it('opens with the schema’s defaults, which are valid once the three sentences are written', () => {
    const result = readForm(good);
    expect(result).toHaveProperty('settings');
    if (!('settings' in result)) return;
    expect(result.settings).toEqual(
      runSettingsSchema.parse({
        name: 'demo',
        purpose: 'Learn to answer.',
        operator: 'Ada',
        ranks: [4, 8, 16],
        tasks: ['rooms', 'travel'],
      }),
    );
    expect(Object.keys(errorsOf({ name: '', purpose: ' ', operator: '' })).sort()).toEqual([
      'name',
      'operator',
      'purpose',
    ]);
  });

  it('reads seconds as milliseconds and ranks with any separator', () => {
    const result = readForm({ ...good, trainingMs: '90', ranks: '2, 8 32' });
    expect(result).toMatchObject({ settings: { trainingMs: 90_000, ranks: [2, 8, 32] } });
  });

  it('leaves pruning to the strategy where its fields are empty', () => {
    const hetlora = readForm({ ...good, strategy: 'hetlora' });
    expect(hetlora).toMatchObject({ settings: { pruneGamma: 0.99, pruneLambda: 0.005 } });
    expect(readForm(good)).toMatchObject({ settings: { pruneGamma: null, pruneLambda: null } });
    const never = readForm({ ...good, strategy: 'hetlora', pruneGamma: '1' });
    expect(never).toMatchObject({ settings: { pruneGamma: 1 } });
  });

  it('shows what only buffered runs have only there, and keeps defaults of what is hidden', () => {
    const shown = (changes: Record<string, string>) =>
      SECTIONS.flatMap((section) => section.fields)
        .filter((field) => isShown(field, { ...good, ...changes }))
        .map((field) => field.key);
    expect(shown({})).toContain('selectionMs');
    expect(shown({})).not.toContain('concurrency');
    expect(shown({ mode: 'buffered' })).toContain('concurrency');
    expect(shown({ mode: 'buffered' })).not.toContain('selectionMs');
    const buffered = readForm({ ...good, mode: 'buffered', concurrency: '9', selectionMs: 'soon' });
    expect(buffered).toMatchObject({ settings: { mode: 'buffered', concurrency: 9, selectionMs: 120_000 } });
    expect(readForm({ ...good, mode: 'buffered' })).toMatchObject({ settings: { concurrency: null } });
    // Typed before the mode was changed back.
    expect(readForm({ ...good, concurrency: '9' })).toMatchObject({ settings: { concurrency: null } });
    expect(readForm({ ...good, lateMs: '0', stalenessPower: '0', maxStaleness: '3', stratify: true })).toMatchObject({
      settings: { lateMs: 0, stalenessPower: 0, maxStaleness: 3, stratify: true },
    });
  });

  it.each([
    [
      { mode: 'buffered', strategy: 'fedit', ranks: '8' },
      {
        mode: 'This must be synchronous: fedit merges no work that started from an older version; flexlora-carry, flexlora-frozen-tail, flora do.',
      },
    ],
    [
      { mode: 'buffered', deterministic: true },
      {
        deterministic: 'This must be off with the mode buffered: who is quicker decides what is merged together.',
      },
    ],
    [{ mode: 'buffered', concurrency: 'all' }, { concurrency: 'A number is needed here.' }],
    [{ lateMs: '-1' }, { lateMs: 'Must be at least 0 s.' }],
    [{ goal: '' }, { goal: 'A number is needed here.' }],
    [{ goal: 'four' }, { goal: 'A number is needed here.' }],
    [{ rounds: '2.5' }, { rounds: 'Must be a whole number.' }],
    [{ rounds: '0' }, { rounds: 'Must be at least 1.' }],
    [{ trainingMs: '0.5' }, { trainingMs: 'Must be at least 1 s.' }],
    [{ learningRate: '0' }, { learningRate: 'Must be more than 0.' }],
    [{ maxWeightShare: '2' }, { maxWeightShare: 'Must be at most 1.' }],
    [{ goal: '2', minimum: '3' }, { minimum: 'This must not exceed the goal.' }],
    [{ pruneGamma: '0.9' }, { pruneGamma: 'This must be left out: pruning ranks on devices is part of hetlora only.' }],
    [{ strategy: 'hetlora', pruneGamma: '1.5' }, { pruneGamma: 'Must be at most 1.' }],
    [{ momentum: '0.9' }, { momentum: 'This must be 0: it is a setting of sgd, and adamw has its own.' }],
    [
      { optimiser: 'sgd', maxGradNorm: '0' },
      {
        maxGradNorm:
          'This must be above 0 with sgd: only clipping bounds how far an honest update can lie from its start.',
      },
    ],
    [{ ranks: '8, 4' }, { ranks: 'This must be ascending without repeats.' }],
    [{ ranks: '' }, { ranks: 'At least one rank is needed.' }],
    [{ ranks: '4, x' }, { ranks: 'Whole numbers with commas between them, such as 4, 8, 16.' }],
    [{ ranks: '0, 4' }, { ranks: 'Each rank must be at least 1.' }],
    [{ tasks: [] as string[] }, { tasks: 'Choose at least one.' }],
    [{ name: 'x'.repeat(61) }, { name: 'At most 60 characters.' }],
    [{ sparseDensity: '0' }, { sparseDensity: 'Must be more than 0.' }],
    [
      { sparseRounds: '10' },
      { sparseRounds: 'This must be fewer than the rounds: factors are trained when they are over.' },
    ],
  ])('says by the field what is wrong: %o', (changes, errors) => {
    expect(errorsOf(changes)).toEqual(errors);
  });
});
