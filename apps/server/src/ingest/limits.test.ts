// What unfinished uploads may take, tried from outside: by all of them together, and by one client.
import { afterEach, describe, expect, it } from 'vitest';
import type { RunningServer, ServerOptions } from '../index.ts';
import { makeFolders, SETTINGS, startServer, TestAdmin } from '../testing/server.ts';
import { TestVolunteer } from '../testing/volunteer.ts';

const closers: (() => void | Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function open(limits: ServerOptions['limits']): Promise<{ server: RunningServer; people: TestVolunteer[] }> {
  const folders = makeFolders();
  closers.push(() => folders.remove());
  const server = await startServer(folders, limits ? { limits } : {});
  closers.push(() => server.close());
  const admin = new TestAdmin(server.url);
  closers.push(() => admin.close());
  const { runId } = await admin.request('admin:create', SETTINGS);
  await admin.request('admin:start', { runId });
  const people = await Promise.all([1, 2, 3].map(() => new TestVolunteer(server.url).enter({ runId })));
  closers.push(() => {
    for (const one of people) one.close();
  });
  return { server, people };
}

describe('unfinished uploads', () => {
  it('of all clients together are bounded: the next is told to come back, and is taken when one has ended', async () => {
    const { people } = await open({ unfinishedBytes: 40_000 });
    const leases = await Promise.all(people.map((one) => one.lease(1)));
    const [first, second] = people;
    const [lease, other] = leases;
    if (!first || !second || !lease || !other) throw new Error('two volunteers with leases');
    const bytes = await first.start(lease);
    expect(bytes.length).toBeGreaterThan(20_000);
    await first.request('upload:begin', first.announcement(lease, bytes));
    await expect(second.request('upload:begin', second.announcement(other, bytes))).rejects.toMatchObject({
      code: 'overloaded',
      retryAfterMs: expect.any(Number),
    });
    await first.send(lease, bytes);
    expect(await second.send(other, bytes)).toMatchObject({ leaseId: other.leaseId });
  });

  it('of one client are bounded, and the one it has goes on', async () => {
    const { people } = await open({ unfinishedUploads: 1 });
    const [one] = people;
    if (!one) throw new Error('a volunteer');
    const lease = await one.lease(1);
    const bytes = await one.start(lease);
    // One is always taken, and taken up again.
    expect(await one.request('upload:begin', one.announcement(lease, bytes))).toEqual({ offset: 0 });
    expect(await one.request('upload:begin', one.announcement(lease, bytes))).toEqual({ offset: 0 });
    expect(await one.send(lease, bytes)).toMatchObject({ leaseId: lease.leaseId });
  });
});
