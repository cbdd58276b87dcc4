// The short form: some hundred schedules, and that the ledger notices a machine that is wrong.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { passed } from '../figure.ts';
import { schedule } from '../schedules/draw.ts';
import { play } from '../schedules/player.ts';
import { schedules } from './schedules.ts';

it('random schedules leave no round stuck and no count wrong', async () => {
  const said: string[] = [];
  const result = await schedules({ schedules: 300, seed: 1 }, (line) => said.push(line));
  expect(said).toEqual([]);
  expect(passed(result)).toBe(true);
  expect(result.detail.events).toBeGreaterThan(10_000);
  // Schedules come to all they are drawn for.
  const reached = Object.entries(result.detail.reached as Record<string, number>);
  expect(reached.filter(([, times]) => times <= 5)).toEqual([]);
});

it('shrinks what goes wrong', () => {
  fc.assert(
    fc.property(schedule, (drawn) => void play(drawn)),
    { numRuns: 100, seed: 2 },
  );
});
