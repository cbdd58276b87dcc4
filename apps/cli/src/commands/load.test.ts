// `weft load` from outside: its processes against a server in this one, honest volunteers beside every kind of misbehaviour.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RunningServer } from '@weft/server';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AdminClient } from '../admin-client.ts';
import { startTestServer, TOKEN } from '../testing/server.ts';
import { commandLine } from '../testing.ts';
import { registerLoad } from './load.ts';

const { document, failure } = commandLine(registerLoad);
let root: string;
let server: RunningServer;
let admin: AdminClient;

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'weft-load-'));
  server = await startTestServer(root, { logger: pino({ level: 'silent' }) });
  admin = await AdminClient.connect(server.url, TOKEN);
});
afterAll(async () => {
  admin.close();
  await server.close();
  rmSync(root, { recursive: true, force: true });
});

async function startRun(rounds: number, goal: number, trainingMs = 60_000): Promise<string> {
  const { runId } = await admin.request('admin:create', {
    name: 'Load',
    purpose: 'Test weft load.',
    operator: 'the tests',
    ranks: [1, 2],
    targets: ['q_proj', 'v_proj'],
    tasks: ['rooms'],
    rounds,
    goal,
    minimum: 3,
    trainingMs,
    evaluate: false,
  });
  await admin.request('admin:start', { runId });
  return runId;
}

describe('weft load', () => {
  it('carries a run to its end: every upload accepted, none quarantined, no error', async () => {
    const runId = await startRun(2, 8);
    const args = ['load', server.url, '--run', runId, '--volunteers', '12', '--ramp', '0.5', '--think', '0.2-0.5'];
    const report = await document([...args, '--processes', '2'], { chatty: true });
    expect(report).toMatchObject({
      runId,
      honest: 12,
      processes: 2,
      mostAdmitted: 12,
      rounds: 2,
      errors: { honest: {} },
    });
    expect(report.receipts).toBeGreaterThanOrEqual(16);
    expect(report.acknowledgements['upload:commit'].p50).toBeGreaterThan(0);
    const { rounds, clientCounts, run } = await admin.request('admin:watch', { runId });
    expect(run.state).toBe('completed');
    expect(rounds.map(({ outcome }) => outcome)).toEqual(['committed', 'committed']);
    expect(
      rounds.flatMap(({ contributions }) => contributions.flatMap(({ quarantined }) => quarantined ?? [])),
    ).toEqual([]);
    // Mixed ranks were really mixed.
    expect(new Set(rounds[0]?.contributions.map(({ rank }) => rank))).toEqual(new Set([1, 2]));
    expect(Object.values(clientCounts).reduce((sum, count) => sum + count, 0)).toBe(12);
  }, 120_000);

  it('commits rounds of the honest while others cut lines, lie about bytes, commit thrice, send NaN and fall silent', async () => {
    // Every one of the 32 has a place, and time ends the round: not all of them will ever deliver.
    const runId = await startRun(1, 25, 12_000);
    const kinds = [
      'drop',
      'duplicate',
      'wrong-hash',
      'oversize',
      'nan',
      'norm',
      'silent',
      'reconnect',
      'stall',
      'slow-reader',
    ];
    const mix = kinds.map((kind) => `${kind}=${1 / 32}`).join(',');
    const args = ['load', server.url, '--run', runId, '--volunteers', '32', '--ramp', '0.5', '--think', '0.2-1'];
    const report = await document([...args, '--processes', '1', '--rounds', '1', '--misbehave', mix], { chatty: true });
    expect(report).toMatchObject({ honest: 22, rounds: 1 });
    const codes = (errors: Record<string, number>) => Object.keys(errors).map((what) => what.replace(/ \(.*/, ''));
    // What misbehaves is told why; what does not is told at most that its round is over.
    expect(codes(report.errors.misbehaving)).toEqual(
      expect.arrayContaining(['upload-hash', 'upload-too-large', 'upload-non-finite', 'upload-norm']),
    );
    expect(codes(report.errors.honest).filter((code) => code !== 'round-closed' && code !== 'unknown-lease')).toEqual(
      [],
    );
    expect(report.errors.misbehaving).not.toHaveProperty('two-receipts (session)');
  }, 120_000);

  it('refuses other machines and mixes that make no sense, by name', async () => {
    expect(await failure(['load', 'http://192.0.2.1:8080'])).toMatchObject({
      exitCode: 2,
      message: expect.stringContaining('this machine only'),
    });
    expect(await failure(['load', server.url, '--misbehave', 'sulk=0.1'])).toMatchObject({
      exitCode: 2,
      message: expect.stringContaining('Kinds: drop'),
    });
    expect(await failure(['load', server.url, '--misbehave', 'drop=0.7,nan=0.7'])).toMatchObject({ exitCode: 2 });
    expect(await failure(['load', server.url, '--transport', 'polling', '--misbehave', 'half-open=1'])).toMatchObject({
      exitCode: 2,
    });
    expect(await failure(['load', server.url, '--ranks', '0'])).toMatchObject({ exitCode: 2 });
  });
});
