// The short form of `npm run chaos -- kills`: a few kills by a fixed seed, all figures reached.
import { expect, it } from 'vitest';
import { passed } from '../figure.ts';
import { kills } from './kills.ts';

it('a server killed at random moments loses nothing it acknowledged and merges to the same bytes', async () => {
  const said: string[] = [];
  const result = await kills({ kills: 6, seed: 3 }, (line) => said.push(line));
  expect(passed(result), `${JSON.stringify(result, null, 1)}\n${said.join('\n')}`).toBe(true);
  expect(result.figures.map(({ name }) => name)).toContain('acknowledged uploads lost');
});
