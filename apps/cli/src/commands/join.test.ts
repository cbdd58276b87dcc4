// `weft join` against the real server with the real trainer: three volunteers of three ranks and an evaluator in one
// process, on a tiny real model; then how it stops, and how it fails.
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RunSettingsInput, RunSnapshot } from '@weft/protocol';
import type { RunningServer } from '@weft/server';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AdminClient } from '../admin-client.ts';
import type { Io } from '../command.ts';
import { createProgram, run as runProgram } from '../program.ts';
import { startTestServer, TOKEN } from '../testing/server.ts';
import { evaluate, type JoinOptions, registerJoin, volunteer } from './join.ts';

const SETTINGS: RunSettingsInput = {
  name: 'Join',
  purpose: 'Test weft join.',
  operator: 'the tests',
  ranks: [2, 4, 8],
  tasks: ['rooms', 'containers', 'travel'],
  rounds: 1,
  goal: 3,
  minimum: 3,
  localSteps: 3,
  batchSize: 2,
  sequenceLength: 32,
  learningRate: 0.01,
};

/** What a command prints, kept. */
class TestIo implements Io {
  readonly json = true;
  readonly notes: string[] = [];
  readonly documents: unknown[] = [];
  readonly abort = new AbortController();
  readonly signal = this.abort.signal;

  note(text: string): void {
    this.notes.push(text);
  }
  status(): void {}
  result(document: unknown, text: () => string): void {
    expect(text().length).toBeGreaterThan(0);
    this.documents.push(document);
  }
}

interface JoinDocument {
  readonly run: { id: string; state: string } | null;
  readonly clientId: string;
  readonly rank: number;
  readonly outcome: string;
  readonly rounds: {
    round: number;
    rank: number;
    task: string | null;
    uploadBytes: number;
    steps: number;
    lastLoss: number;
  }[];
  readonly totals: { rounds: number };
}

let root: string;
let server: RunningServer;
let admin: AdminClient;

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'weft-join-'));
  server = await startTestServer(root, { restMs: 100 });
  admin = await AdminClient.connect(server.url, TOKEN);
});

afterAll(async () => {
  admin?.close();
  await server?.close();
  rmSync(root, { recursive: true, force: true });
});

const stateDir = (name: string) => join(root, name);

async function startRun(settings: Partial<RunSettingsInput> = {}): Promise<string> {
  const { runId } = await admin.request('admin:create', { ...SETTINGS, ...settings });
  await admin.request('admin:start', { runId });
  return runId;
}

async function join1(name: string, options: JoinOptions): Promise<{ io: TestIo; document: JoinDocument }> {
  const io = new TestIo();
  await volunteer(server.url, { name, stateDir: stateDir(name), ...options }, io);
  return { io, document: io.documents[0] as JoinDocument };
}

const snapshot = (runId: string): Promise<RunSnapshot> => admin.request('admin:watch', { runId });

describe('weft join', () => {
  // Four devices compile their shaders at once here, which takes a software GPU its time.
  it('three volunteers of three ranks carry a round, and an evaluator measures it', { timeout: 240_000 }, async () => {
    const runId = await startRun({ smallOwnFileCohorts: true });
    const data = join(root, 'own.jsonl');
    writeFileSync(data, `${JSON.stringify({ prompt: 'One two', completion: ' three' })}\n`.repeat(4));
    const evaluator = new TestIo();
    const measuring = evaluate(server.url, { run: runId, operatorToken: TOKEN, stateDir: stateDir('a') }, evaluator);
    const [a, b, c] = await Promise.all([
      join1('a', { run: runId, maxRank: 2 }),
      join1('b', { run: runId, maxRank: 4, rounds: 1 }),
      join1('c', { run: runId, maxRank: 100, data }),
    ]);
    await measuring;
    const all = [a.document, b.document, c.document];
    expect(all.map((document) => document.rank)).toEqual([2, 4, 8]);
    expect(all.map((document) => document.rounds.map((round) => round.rank))).toEqual([[2], [4], [8]]);
    expect(all.map((document) => document.rounds[0]?.steps)).toEqual([3, 3, 3]);
    const [taskA, taskB, taskC] = all.map((document) => document.rounds[0]?.task);
    expect(SETTINGS.tasks).toContain(taskA);
    expect(SETTINGS.tasks).toContain(taskB);
    expect(taskA).not.toBe(taskB);
    expect(taskC).toBeNull();
    expect(c.io.notes[0]).toContain('Your rows stay on this machine');
    expect([a, c].map(({ document }) => document.run?.state)).toEqual(['completed', 'completed']);
    expect(a.document.outcome).toContain('Committed 1 round');
    expect(b.document.outcome).toContain('Stopped. 1 round helped');
    const bytes = all.map((document) => document.rounds[0]?.uploadBytes ?? 0);
    expect(bytes[0]).toBeLessThan(bytes[1] ?? 0);
    expect(bytes[1]).toBeLessThan(bytes[2] ?? 0);
    expect(new Set(all.map((document) => document.clientId)).size).toBe(3);

    const { run, rounds, baseLoss } = await snapshot(runId);
    expect(run.version).toBe(1);
    const contributions = rounds[0]?.contributions ?? [];
    expect(contributions.map((item) => item.rank).sort()).toEqual([2, 4, 8]);
    expect(contributions.map((item) => item.uploadBytes).sort((x, y) => x - y)).toEqual(bytes);
    expect(contributions.every((item) => item.quarantined === null)).toBe(true);
    // Both the base model and version 1 were measured on the real test rows.
    const measured = evaluator.documents[0] as { measured: { version: number; heldOutLoss: Record<string, number> }[] };
    expect(measured.measured.map((item) => item.version)).toEqual([0, 1]);
    expect(rounds[0]?.heldOutLoss).toEqual(measured.measured[1]?.heldOutLoss);
    expect(baseLoss).toEqual(measured.measured[0]?.heldOutLoss);
    for (const loss of Object.values(baseLoss ?? {})) expect(loss).toBeGreaterThan(1);
    expect(a.io.notes.some((line) => /^Round 1: granted rank 2 on task \w+/.test(line))).toBe(true);
    expect(a.io.notes.some((line) => line.startsWith('Not rank 4: Rank 4 is above your limit of 2.'))).toBe(true);
  });

  it('gives its place back on Ctrl-C, and comes back as the same volunteer without fetching the model again', async () => {
    const runId = await startRun();
    const io = new TestIo();
    const running = volunteer(server.url, { run: runId, name: 'd', stateDir: stateDir('d'), task: 'rooms' }, io);
    const leased = async () => (await snapshot(runId)).round.training === 1;
    while (!(await leased())) await new Promise((resolve) => setTimeout(resolve, 50));
    io.abort.abort();
    await running;
    const { round, clients } = await snapshot(runId);
    expect(round.training).toBe(0);
    expect(round.dropped).toBe(1);
    expect(clients.find((client) => client.name === 'd')?.reason).toBe('The volunteer stopped.');
    const document = io.documents[0] as JoinDocument;
    expect(document.outcome).toContain('Stopped.');

    const again = new TestIo();
    const second = volunteer(server.url, { run: runId, name: 'd', stateDir: stateDir('d'), task: 'rooms' }, again);
    while (!(await leased())) await new Promise((resolve) => setTimeout(resolve, 50));
    await admin.request('admin:stop', { runId });
    await second;
    expect((again.documents[0] as JoinDocument).clientId).toBe(document.clientId);
    expect((again.documents[0] as JoinDocument).outcome).toContain('Stopped after 0 committed rounds');
  });

  it('names what is wrong with an own file, a run, a token or a folder in use', async () => {
    const bad = join(root, 'bad.jsonl');
    writeFileSync(bad, '{"prompt":"a","completion":"b"}\nnonsense\n');
    await expect(join1('g', { data: bad })).rejects.toMatchObject({
      code: 'data-line',
      message: expect.stringContaining('Line 2'),
    });
    await expect(join1('g', { data: join(root, 'none.jsonl') })).rejects.toMatchObject({ code: 'no-such-file' });
    await expect(join1('g', { run: 'no-such-run' })).rejects.toMatchObject({ code: 'unknown-run' });
    const wrong = evaluate(server.url, { operatorToken: 'wrong', stateDir: stateDir('g') }, new TestIo());
    await expect(wrong).rejects.toMatchObject({ code: 'unauthorised' });
    writeFileSync(join(stateDir('g'), 'volunteer.lock'), String(process.pid));
    await expect(join1('g', {})).rejects.toMatchObject({ code: 'state-in-use' });
    // The lock of a process that is gone is nobody's.
    writeFileSync(join(stateDir('g'), 'volunteer.lock'), '999999999');
    await expect(join1('g', { run: 'no-such-run' })).rejects.toMatchObject({ code: 'unknown-run' });
    writeFileSync(join(stateDir('g'), 'volunteer-key.json'), '{}');
    await expect(join1('g', {})).rejects.toMatchObject({
      code: 'identity',
      cause: { code: 'state-damaged', message: expect.stringContaining('volunteer-key.json') },
    });
  });

  it('keeps its key to itself', () => {
    const folder = join(stateDir('a'), 'keys', 'volunteer');
    const files = readdirSync(folder);
    expect(files.length).toBeGreaterThan(0);
    for (const file of files) {
      const key = JSON.parse(readFileSync(join(folder, file), 'utf8')) as { d?: string };
      expect(typeof key.d).toBe('string');
      // Nobody else of this machine reads it.
      expect(statSync(join(folder, file)).mode & 0o077).toBe(0);
    }
  });

  it.each([
    [['join'], 'no address'],
    [['join', 'localhost:1', '--evaluate', '--operator-token', 't', '--data', 'x'], 'evaluating with data'],
    [['join', 'localhost:1', '--evaluate'], 'evaluating without a token'],
    [['join', 'localhost:1', '--data', 'x', '--task', 'rooms'], 'two sources of data'],
    [['join', 'localhost:1', '--max-memory', '-3'], 'a negative limit'],
    [['join', 'ftp://localhost'], 'another scheme'],
    [['join', 'http://'], 'no host'],
  ])('%j is bad usage: %s', async (argv) => {
    const before = process.exitCode;
    const code = await runProgram(createProgram([registerJoin], '0'), argv);
    process.exitCode = before;
    expect(code).toBe(2);
  });
});
