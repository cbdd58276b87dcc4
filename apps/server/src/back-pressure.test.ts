// What a server does when it is asked for more than it can give: it says so, in time, and those who are served stay so.
import { NAMESPACES, PROTOCOL_VERSION, ProtocolError, wireErrorSchema } from '@weft/protocol';
import { io } from 'socket.io-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunningServer } from './server.ts';
import { makeFolders, SETTINGS, startServer, TestAdmin } from './testing/server.ts';
import { TestVolunteer } from './testing/volunteer.ts';

const folders = makeFolders();
let server: RunningServer;
let admin: TestAdmin;
let runId: string;

beforeAll(async () => {
  server = await startServer(folders, { limits: { volunteers: 310 } });
  admin = new TestAdmin(server.url);
  ({ runId } = await admin.request('admin:create', { ...SETTINGS, goal: 1000, minimum: 3, selectionMs: 600_000 }));
  await admin.request('admin:start', { runId });
});
afterAll(async () => {
  admin.close();
  await server.close();
  folders.remove();
});

describe('a crowd', () => {
  const crowd: TestVolunteer[] = [];
  afterAll(() => {
    for (const volunteer of crowd) volunteer.close();
  });

  it('is paced: beyond a burst each is told another moment to come back, and is admitted then', async () => {
    for (let i = 0; i < 300; i++) crowd.push(new TestVolunteer(server.url));
    const waits: number[] = [];
    const enter = async (volunteer: TestVolunteer): Promise<void> => {
      try {
        await volunteer.enter();
      } catch (error) {
        if (!(error instanceof ProtocolError) || error.code !== 'overloaded') throw error;
        waits.push(error.retryAfterMs ?? Number.NaN);
        await new Promise((resolve) => setTimeout(resolve, error.retryAfterMs));
        await enter(volunteer);
      }
    };
    await Promise.all(crowd.map(enter));
    // Whether anybody had to wait depends on how quickly this machine lets three hundred arrive.
    for (const wait of waits) expect(wait).toBeGreaterThanOrEqual(250);
    expect((await admin.snapshot(runId)).round.here).toBe(300);
  });

  it('is shown by counts, a bounded number of rows, and pages of what was asked for', async () => {
    await Promise.all(crowd.slice(0, 250).map((volunteer, i) => volunteer.join([1, 2, 4][i % 3] ?? 1)));
    const { clients, clientCounts } = await admin.snapshot(runId);
    expect(clients).toHaveLength(200);
    expect(clientCounts).toMatchObject({ downloading: 250, here: 50, gone: 0 });
    const page = await admin.request('admin:clients', {
      runId,
      query: 'rank 4',
      sort: 'device',
      descending: true,
      offset: 80,
      limit: 10,
    });
    expect(page.total).toBe(83);
    expect(page.rows).toHaveLength(3);
    expect(page.rows.every(({ rank }) => rank === 4)).toBe(true);
    const idle = await admin.request('admin:clients', { runId, state: 'here', limit: 500 });
    expect(idle.total).toBe(50);
    expect(idle.rows.every(({ state }) => state === 'here')).toBe(true);
  });

  it('hears of the round’s end in good time, everyone of them', async () => {
    const ended = crowd.map(
      (volunteer) =>
        new Promise<void>((resolve) => {
          volunteer.socket.on('run:state', ({ state }: { state: string }) => state === 'stopped' && resolve());
        }),
    );
    await admin.request('admin:stop', { runId });
    await Promise.all(ended);
  }, 30_000);

  it('ends where the operator set its end: who comes beyond is refused with a time, operators are not', async () => {
    const more = Array.from({ length: 12 }, () => new TestVolunteer(server.url));
    crowd.push(...more);
    await expect.poll(() => more.filter(({ socket }) => socket.connected).length).toBe(10);
    const refused = io(`${server.url}${NAMESPACES.volunteer}`, { transports: ['websocket'], forceNew: true });
    const error = await new Promise<unknown>((resolve) => refused.on('connect_error', resolve));
    refused.close();
    const data: unknown = error instanceof Error && 'data' in error ? error.data : null;
    expect(wireErrorSchema.parse(data)).toMatchObject({ code: 'overloaded', retryAfterMs: expect.any(Number) });
    const another = new TestAdmin(server.url);
    await expect(another.request('admin:overview', {})).resolves.toBeDefined();
    another.close();
  });
});

describe('one socket', () => {
  it('that guesses signatures is closed after the third', async () => {
    const ownFolders = makeFolders();
    const own = await startServer(ownFolders);
    const guesser = new TestVolunteer(own.url);
    try {
      const first = new TestAdmin(own.url);
      await first.request('admin:create', SETTINGS);
      first.close();
      const gone = new Promise<string>((resolve) => guesser.socket.on('disconnect', resolve));
      for (let i = 0; i < 3; i++) {
        const { challenge } = await guesser.request('volunteer:hello', {
          protocolVersion: PROTOCOL_VERSION,
          runId: null,
          name: null,
          client: { kind: 'load', version: '0' },
          operatorToken: null,
        });
        const answer = await guesser.raw('volunteer:prove', {
          publicKey: guesser.publicKey,
          signature: guesser.sign(`${challenge}.`),
        });
        expect(answer).toMatchObject({ ok: false, error: { code: 'bad-signature' } });
      }
      expect(await gone).toBe('io server disconnect');
    } finally {
      guesser.close();
      await own.close();
      ownFolders.remove();
    }
  });
});
