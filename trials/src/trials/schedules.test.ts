// The short form: some hundred schedules, and that the ledger notices a machine that is wrong.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { passed } from '../figure.ts';
import { play, schedule, schedules } from './schedules.ts';

it('random schedules leave no round stuck and no count wrong', async () => {
  const said: string[] = [];
  const result = await schedules({ schedules: 300, seed: 1 }, (line) => said.push(line));
  expect(said).toEqual([]);
  expect(passed(result)).toBe(true);
  expect(result.detail.events).toBeGreaterThan(10_000);
  // Schedules come to all they are drawn for.
  for (const times of Object.values(result.detail.reached as Record<string, number>)) expect(times).toBeGreaterThan(5);
});

it('shrinks what goes wrong', () => {
  fc.assert(
    fc.property(schedule, (drawn) => void play(drawn)),
    { numRuns: 100, seed: 2 },
  );
});
