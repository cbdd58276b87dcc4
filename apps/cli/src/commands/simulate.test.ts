// `weft simulate` on the smallest real model and the real trainer: few rows, few rounds.
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { expect, it } from 'vitest';
import { asset, commandLine, task } from '../testing.ts';
import { registerSimulate } from './simulate.ts';

const { file, document, failure } = commandLine(registerSimulate);

const RUN = {
  ...{ name: 'test', purpose: 'a test', operator: 'the tests', tasks: ['rooms', 'travel'], seed: 'test' },
  ...{ rounds: 2, localSteps: 2, batchSize: 2, sequenceLength: 32, targets: ['q_proj', 'v_proj'], maxChangeNorm: 1 },
};

const simulation = async (name: string, changes: Record<string, unknown> = {}): Promise<string> => {
  const path = file(name);
  const document = {
    model: asset('stories260K'),
    tasks: dirname(dirname(task('rooms', 'train'))),
    run: RUN,
    clients: [
      { rank: 2, count: 2 },
      { rank: 8, count: 1 },
    ],
    strategies: ['flexlora', 'flexlora-carry', 'flexlora-frozen-tail', 'flora'],
    idleRounds: 1,
    ...changes,
  };
  await writeFile(path, JSON.stringify(document));
  return path;
};

interface Round {
  readonly trained: boolean;
  readonly trainLoss: number | null;
  readonly matrices: readonly { readonly sigma: readonly number[]; readonly p: readonly number[] }[];
}

it('runs every strategy from the same start, and writes a page with plots', async () => {
  const out = file('out');
  const report = await document(['simulate', await simulation('four.yaml'), '--out', out], { chatty: true });
  expect(report.ranks).toEqual([2, 2, 8]);
  const runs: { strategy: string; rounds: Round[]; heldOut: { round: number; loss: number }[] }[] = report.runs;
  expect(runs.map(({ strategy }) => strategy)).toEqual(['flexlora', 'flexlora-carry', 'flexlora-frozen-tail', 'flora']);
  for (const { strategy, rounds, heldOut } of runs) {
    expect(rounds.map(({ trained }) => trained)).toEqual([true, true, false]);
    // Nothing is merged yet in the first round: all strategies train the same, flora from factors drawn for the round.
    if (strategy !== 'flora') expect(rounds[0]?.trainLoss).toBe(runs[0]?.rounds[0]?.trainLoss);
    expect(rounds[1]?.trainLoss).toBeLessThan(rounds[0]?.trainLoss ?? 0);
    expect(heldOut.at(-1)?.loss).toBeLessThan(heldOut[0]?.loss ?? 0);
  }
  // When nobody trains, flexlora keeps the share p of every direction, and the others keep all.
  for (const { strategy, rounds } of runs) {
    for (const [m, { sigma, p }] of (rounds[1]?.matrices ?? []).entries()) {
      const after = rounds[2]?.matrices[m]?.sigma ?? [];
      for (const [j, value] of sigma.entries()) {
        const expected = strategy === 'flexlora' ? value * (rounds[2]?.matrices[m]?.p[j] ?? 0) : value;
        expect(Math.abs((after[j] ?? 0) - expected)).toBeLessThan(1e-5 * (sigma[0] ?? 0));
      }
      expect(p).toHaveLength(8);
    }
  }
  expect((await readdir(out)).sort()).toEqual([
    'README.md',
    'beyond-rank-2.svg',
    'by-direction.svg',
    'idle.svg',
    'report.json',
  ]);
  expect(await readFile(file('out', 'README.md'), 'utf8')).toMatch(
    /2 rounds of 3 clients \(2 of rank 2, 1 of rank 8\)/,
  );
}, 120_000);

it('names what is wrong with a file before anything is trained', async () => {
  const refused = async (changes: Record<string, unknown>) =>
    failure(['simulate', await simulation('bad.yaml', changes)]);
  expect(await refused({ strategies: ['median'] })).toMatchObject({ exitCode: 1, code: 'experiment' });
  expect(await refused({ strategies: ['hetlora'] })).toMatchObject({
    message: expect.stringMatching(/with hetlora, run\.maxChangeNorm: .*average factors/),
  });
  expect(await refused({ strategies: ['fedit'], run: { ...RUN, maxChangeNorm: 0 } })).toMatchObject({
    message: expect.stringMatching(/with fedit, run\.ranks: .*fedit averages factors of one rank/),
  });
  const run = { name: 'x', purpose: 'x', operator: 'x', tasks: ['rooms'], rounds: 3, sparseRounds: 1 };
  expect(await refused({ run, strategies: ['flexlora'] })).toMatchObject({
    message: expect.stringMatching(/with flexlora, run\.sparseRounds: sparse rounds are not simulated/),
  });
  expect(await refused({ clients: [{ rank: 2, count: 500 }] })).toMatchObject({
    message: expect.stringMatching(/rooms has 180 rows for 250 clients/),
  });
  expect(await refused({ run: { ...RUN, rejectOpposed: 0.75 } })).toMatchObject({
    message: expect.stringMatching(/run\.rejectOpposed: a simulation merges every client/),
  });
  expect(await failure(['simulate', file('none.yaml')])).toMatchObject({ code: 'experiment' });
});

it('lets clients of hetlora prune themselves, and go on at the rank they kept', async () => {
  const run = {
    ...{ name: 'test', purpose: 'a test', operator: 'the tests', tasks: ['rooms', 'travel'], seed: 'test', rounds: 2 },
    ...{ localSteps: 3, batchSize: 2, sequenceLength: 32, targets: ['q_proj', 'v_proj'], learningRate: 0.02 },
    ...{ pruneGamma: 0.5, pruneLambda: 20 },
  };
  const path = await simulation('pruning.yaml', { run, strategies: ['hetlora'], idleRounds: 1 });
  const report = await document(['simulate', path, '--out', file('pruned')], { chatty: true });
  const rounds: Round[] = report.runs[0].rounds;
  // Ranks 2, 2 and 8 have nothing to prune while B is 0; then half of their directions go, and stay away.
  expect(rounds.map(({ matrices }) => matrices[0]?.p.length)).toEqual([8, 4, 4]);
});
