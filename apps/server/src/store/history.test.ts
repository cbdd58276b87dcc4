// The history index by itself, on PGlite and again on PostgreSQL (project `postgres`): it always comes to equal the files.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RoundRecord } from '@weft/protocol';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { quiet, testContribution, testPlace, testReceipt, testRound, testRun } from '../testing/index-place.ts';
import { deleteIndex } from '../testing/server.ts';
import { History } from './database.ts';
import type { IndexedReceipt } from './history.ts';

let folder: string;
const open: { close(): Promise<void> }[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-index-'));
});
afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
  rmSync(folder, { recursive: true, force: true });
});

const keep = <T extends { close(): Promise<void> }>(one: T): T => {
  open.push(one);
  return one;
};
const startHistory = () => keep(new History(testPlace(folder), quiet));
const contributorsOf = async (history: History, runId = 'run') =>
  (await history.contributors(runId)).map(({ clientId, rounds, targetTokens, quarantined, lastRound }) => [
    clientId,
    rounds,
    targetTokens,
    quarantined,
    lastRound,
  ]);

it('equals the files after every loss: deleted, behind, ahead, and with rounds that changed', async () => {
  const [one, two] = [testContribution('one', { name: 'zero\0byte' }), testContribution('two', { targetTokens: 250 })];
  const records: RoundRecord[] = [testRound(1, [one, two])];
  const receipts = new Map<number, IndexedReceipt[]>([
    [1, [testReceipt('run', 1, 'a', 'one'), testReceipt('run', 1, 'b', 'two')]],
  ]);
  const withdrawn = new Set<string>();
  const run = testRun('run', records, receipts, withdrawn);
  const first = startHistory();
  first.catchUp(run);
  expect(await contributorsOf(first)).toEqual([
    ['two', 1, 250, 0, 1],
    ['one', 1, 100, 0, 1],
  ]);
  const second = testRound(2, [{ ...one, quarantined: 'too far' }]);
  records.push(second);
  const late = testReceipt('run', 2, 'c', 'one');
  receipts.set(2, [late]);
  first.round('run', second);
  first.upload({ receipt: late });
  first.upload({ receipt: late });
  const expected = [
    ['two', 1, 250, 0, 1],
    ['one', 2, 200, 1, 2],
  ];
  expect(await contributorsOf(first)).toEqual(expected);
  const whole = await first.contributors('run');
  await first.close();

  await deleteIndex(folder);
  const again = startHistory();
  again.catchUp(run);
  expect(await again.contributors('run')).toEqual(whole);
  await again.close();

  // While nobody looked: a round evaluated, an upload withdrawn and another counted, a round undone.
  records.splice(0, 2, testRound(1, [two], { heldOutLoss: { rooms: 1.5 } }));
  receipts.set(1, [testReceipt('run', 1, 'd', 'two')]);
  receipts.delete(2);
  const third = startHistory();
  third.catchUp(run);
  expect(await contributorsOf(third)).toEqual([['two', 1, 250, 0, 1]]);
  receipts.set(1, [testReceipt('run', 1, 'e', 'one'), testReceipt('run', 1, 'f', 'two')]);
  third.filesChanged('run');
  await third.contributors('run');
  // The same files with other words in them.
  withdrawn.add('e');
  third.receiptsChanged('run', 1);
  // More rows than a statement has room for.
  const many = Array.from({ length: 2_500 }, (_, i) => `client-${i}`);
  const lots = new Map([[1, many.map((client, i) => testReceipt('many', 1, `lease-${i}`, client))]]);
  third.catchUp(
    testRun(
      'many',
      [
        testRound(
          1,
          many.map((client) => testContribution(client)),
        ),
      ],
      lots,
    ),
  );
  expect(await third.contributors('many')).toHaveLength(2_500);
  expect(third.behind).toBe(0);
  await third.close();
  const connection = keep(await testPlace(folder).open(new AbortController().signal, () => undefined));
  expect(await connection.query("select held_out_loss from rounds where run_id = 'run'")).toEqual([[{ rooms: 1.5 }]]);
  expect(await connection.query("select lease_id from receipts where run_id = 'run'")).toEqual([['f']]);
});
