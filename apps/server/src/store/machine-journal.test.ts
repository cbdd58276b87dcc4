// The journal of the machine's events: what is read back is what was, whatever a kill left of the last line.
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { initialState, step } from '../coordinator/machine.ts';
import type { MachineEvent, MachineState, Policy, Wish } from '../coordinator/types.ts';
import { CheckReport } from './check-report.ts';
import { RunStore } from './run-store.ts';

const silent = pino({ level: 'silent' });
const POLICY: Policy = {
  mode: 'synchronous',
  goal: 3,
  minimum: 3,
  ownFileMinimum: 3,
  deterministic: false,
  seed: 'a seed',
  tasks: ['rooms'],
  ranks: [2],
  stratify: false,
  concurrency: 4,
  maxStaleness: 10,
  rounds: 3,
  selectionMs: 60_000,
  graceMs: 5_000,
  trainingMs: 600_000,
  mergingMs: 60_000,
  lateMs: 30_000,
  restMs: 100,
};
const initial = () => initialState(POLICY);
const wish = (i: number): Wish => ({
  leaseId: `l${i}`,
  clientId: `c${i}`,
  key: `c${i}`,
  rank: 2,
  task: null,
  own: false,
});

let folder: string;
let report: CheckReport;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-journal-'));
  report = new CheckReport(folder, new Date(), silent);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const open = () => new RunStore(folder).machineJournal(silent, report);
const read = (): MachineState => open().load(initial);

/** Feeds events to the machine as a live run does, and keeps their journal. */
function play(events: readonly MachineEvent[], after: (state: MachineState) => void = () => undefined): MachineState {
  const journal = open();
  let state = journal.load(initial);
  for (const event of events) {
    const { state: next, effects } = step(state, event);
    state = next;
    if (event.type === 'elapsed' && effects.length === 0) journal.pass(event.ms, state);
    else {
      journal.append(event, state, { barrier: effects.some(({ type }) => type === 'phase') });
      after(state);
    }
  }
  return state;
}

const elapsed = (ms: number): MachineEvent => ({ type: 'elapsed', ms });
const round: readonly MachineEvent[] = [
  { type: 'start' },
  { type: 'present', count: 4 },
  ...[1, 2, 3, 4].flatMap((i): MachineEvent[] => [{ type: 'wish', wish: wish(i) }, elapsed(130), elapsed(70)]),
  elapsed(5_001),
  { type: 'uploaded', leaseId: 'l1' },
  elapsed(300),
  { type: 'lost', leaseId: 'l4', reason: 'gone' },
  { type: 'withdraw', clientId: 'c4' },
  { type: 'uploaded', leaseId: 'l2' },
  { type: 'uploaded', leaseId: 'l3' },
  { type: 'merged', round: 1, quarantined: [{ leaseId: 'l2', reason: 'absurd' }] },
  elapsed(101),
];

describe('the journal of the machine', () => {
  it('gives the state back after every event, however the process ends', async () => {
    const states: string[] = [];
    const last = play(round, (state) => {
      // What a process that is killed here leaves behind.
      expect(read()).toEqual(state);
      states.push(state.phase);
    });
    expect(states).toContain('merging');
    expect(last).toMatchObject({ round: 2, version: 1, phase: 'selecting' });
    // Snapshots that were still being written have replaced nothing newer.
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(read()).toEqual(last);
  });

  it('writes a line an event, not the whole state', async () => {
    const events = Array.from({ length: 3_000 }, (_, i): MachineEvent => ({ type: 'wish', wish: wish(i) }));
    const last = play([{ type: 'start' }, ...events]);
    await new Promise((resolve) => setTimeout(resolve, 100));
    const lines = readFileSync(join(folder, 'journal.jsonl'), 'utf8').split('\n');
    expect(lines.length).toBeGreaterThan(2_900);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThan(300);
    expect(read()).toEqual(last);
  });

  it('is started anew once its lines outweigh the snapshot', async () => {
    const long = 'x'.repeat(50_000);
    const events = Array.from({ length: 60 }, (): MachineEvent => ({ type: 'lost', leaseId: 'l9', reason: long }));
    const last = play([{ type: 'start' }, ...events.slice(0, 30)]);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(statSync(join(folder, 'journal.jsonl')).size).toBeLessThan(1_000_000);
    expect(read()).toEqual(last);
  });

  it('leaves a half-written last line out and says how much of which file', () => {
    const last = play(round);
    appendFileSync(join(folder, 'journal.jsonl'), '{"n":999,"event":{"ty');
    expect(read()).toEqual(last);
    expect(report.findings).toEqual([
      expect.objectContaining({ kind: 'journal-cut', path: join(folder, 'journal.jsonl'), bytes: 21 }),
    ]);
    // The next event does not follow the half one.
    const next = play([{ type: 'withdraw', clientId: 'c1' }]);
    expect(read()).toEqual(next);
  });

  it('names a line that is no event, and lines that are missing', () => {
    const wishes = [1, 2].map((i): MachineEvent => ({ type: 'wish', wish: wish(i) }));
    play([{ type: 'start' }, ...wishes]);
    const path = join(folder, 'journal.jsonl');
    const [first = '', second = ''] = readFileSync(path, 'utf8').split('\n');
    writeFileSync(path, `${first.slice(0, -9)}\n${second}\n`);
    expect(read).toThrow(
      expect.objectContaining({ code: 'data-dir-corrupt', message: expect.stringContaining('line 1') }),
    );
    writeFileSync(path, `${second}\n`);
    expect(read).toThrow(/lines are missing.*Restore/);
    writeFileSync(path, `${first.replace('"wish"', '"fish"')}\n${second}\n`);
    expect(read).toThrow(/line 1 is no event/);
  });

  it('goes on from a state of the first format, which had no journal', () => {
    const before = step(initial(), { type: 'start' }).state;
    writeFileSync(join(folder, 'state.json'), JSON.stringify(before, null, 1));
    expect(read()).toEqual(before);
    const after = play([{ type: 'wish', wish: wish(1) }]);
    expect(read()).toEqual(after);
    expect(after.leases).toHaveLength(1);
  });

  it('closes with everything in one snapshot', async () => {
    const journal = open();
    let state = journal.load(initial);
    for (const event of round) {
      state = step(state, event).state;
      journal.append(event, state, { barrier: false });
    }
    journal.pass(5, state);
    await journal.close();
    expect(statSync(join(folder, 'journal.jsonl'), { throwIfNoEntry: false })).toBeUndefined();
    expect(read()).toEqual(state);
  });
});
