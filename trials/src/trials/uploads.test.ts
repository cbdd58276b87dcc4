// Short forms of the trials about uploads and about those who mean ill. What is a matter of speed is printed by the long forms
// only: here other tests run on the same cores.
import { expect, it } from 'vitest';
import type { TrialResult } from '../figure.ts';
import { hostile } from './hostile.ts';
import { ingest } from './ingest.ts';
import { poison } from './poison.ts';

const SPEED = ['throughput beside a bare Socket.IO sink', 'honest acknowledgements, p99'];

const quiet = (): void => undefined;
const missed = ({ figures, detail }: TrialResult) => {
  const misses = figures.filter(({ name, ok }) => !ok && !SPEED.includes(name));
  return misses.length === 0 ? [] : [misses, detail];
};

it('every upload of a round is acknowledged, and on disk when the server is killed at once', async () => {
  const result = await ingest({ uploads: 24, turns: 2, processes: 1, atOnce: 8, layers: 2 }, quiet);
  expect(missed(result)).toEqual([]);
  expect(result.figures).toHaveLength(3);
});

it('every hostile message, upload, request and frame is answered by name, and the server goes on', async () => {
  const result = await hostile({ passes: 1, atOnce: 4, beforeMs: 500 }, quiet);
  expect(missed(result)).toEqual([]);
  expect(result.figures).toHaveLength(6);
});

it('a client that claims 10⁹ tokens moves the merge no more than its cap', async () => {
  const result = await poison({ honest: 8 }, quiet);
  expect(missed(result)).toEqual([]);
  expect(result.figures).toHaveLength(9);
});
