// Alerts from outside: a server with real trouble, and a real receiver that takes them, fails, or hangs.
import { rmSync } from 'node:fs';
import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { writeFactors } from '@weft/formats';
import { alertSchema } from '@weft/protocol';
import { pino } from 'pino';
import { afterEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { makeFolders, SETTINGS, startServer, TestAdmin } from '../testing/server.ts';
import { readFactors, TestVolunteer, train } from '../testing/volunteer.ts';
import type { AlertNews } from './center.ts';
import { Webhook, type WebhookTimes } from './webhook.ts';

const newsSchema = alertSchema.extend({ state: z.enum(['raised', 'resolved']) }).strict();
const open: { close(): void | Promise<void> }[] = [];
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.close();
});
const keep = <T extends { close(): void | Promise<void> }>(one: T): T => {
  open.push(one);
  return one;
};
const until = async (wanted: () => boolean, ms = 15_000) => {
  for (const end = Date.now() + ms; !wanted(); ) {
    if (Date.now() > end) throw new Error(`not in ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

/** A receiver; what it got, in order. `answer` may leave a request hanging. */
async function receiver(answer: (reply: ServerResponse, nth: number) => void) {
  const got: AlertNews[] = [];
  let asked = 0;
  const server: Server = createHttpServer((request: IncomingMessage, reply) => {
    let body = '';
    request.on('data', (chunk) => {
      body += String(chunk);
    });
    request.on('end', () => {
      got.push(newsSchema.parse(JSON.parse(body)));
      asked += 1;
      answer(reply, asked);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  keep({
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  });
  return { got, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook` };
}
const takes = () => receiver((reply) => reply.writeHead(204).end());
const kindsOf = (got: readonly AlertNews[]) => got.map(({ kind, state }) => `${kind} ${state}`);

describe('a webhook', () => {
  const news = (n: number): AlertNews => ({
    at: new Date(n).toISOString(),
    run: null,
    kind: 'stalled',
    text: `alert ${n}`,
    detail: { n },
    state: 'raised',
  });
  const times: WebhookTimes = { timeoutMs: 150, firstRetryMs: 20, longestRetryMs: 80, tries: 4 };
  const webhook = (url: string) => keep(new Webhook(url, pino({ level: 'silent' }), times));

  it('that answers 500 is asked again until it takes the alert, and the order is kept', async () => {
    const { got, url } = await receiver((reply, nth) => reply.writeHead(nth < 3 ? 500 : 200).end('words'));
    const hook = webhook(url);
    hook.send(news(1));
    hook.send(news(2));
    await until(() => hook.delivered === 2);
    expect(got.map(({ text }) => text)).toEqual(['alert 1', 'alert 1', 'alert 1', 'alert 2']);
    expect(hook.lost).toBe(0);
  });

  it('that hangs is left after its time, given up after its tries, and delays nobody', async () => {
    const { got, url } = await receiver(() => undefined);
    const hook = webhook(url);
    const began = performance.now();
    for (let n = 0; n < 300; n++) hook.send(news(n));
    expect(performance.now() - began).toBeLessThan(100);
    expect(hook.waiting).toBeLessThanOrEqual(100);
    await until(() => got.length >= 5);
    // Four tries of the first, then the next: of those that fit, the newest are kept.
    expect(got.slice(0, 5).map(({ text }) => text)).toEqual([...Array(4).fill('alert 0'), 'alert 201']);
    expect(hook.lost).toBeGreaterThan(200);
    const closing = performance.now();
    await hook.close();
    expect(performance.now() - closing).toBeLessThan(100);
  });

  it('that is no URL is refused without being repeated', () => {
    expect(() => new Webhook('ftp://host/secret', pino({ level: 'silent' }))).toThrowError(
      expect.objectContaining({ code: 'bad-webhook', message: expect.not.stringContaining('secret') }),
    );
  });
});

describe('a server', () => {
  it('tells of a run that stalls once, and again when it moves; rounds do not wait for a receiver that hangs', async () => {
    const folders = makeFolders();
    keep({ close: () => folders.remove() });
    const { got, url: alertWebhook } = await receiver((reply, nth) => {
      if (nth < 2) reply.writeHead(200).end();
    });
    const server = keep(
      await startServer(folders, { alertWebhook, alertStallMs: 300, alertEveryMs: 50, alertFreeBytes: 0 }),
    );
    const admin = keep(new TestAdmin(server.url));
    const { runId } = await admin.request('admin:create', { ...SETTINGS, rounds: 1 });
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect((await admin.request('admin:overview', {})).alerts).toEqual([]);
    await admin.request('admin:start', { runId });
    const [alert] = await admin.untilAlerts((kinds) => kinds.includes('stalled'));
    expect(alert).toMatchObject({ run: runId, text: expect.stringContaining('Waiting for the first volunteer') });
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(kindsOf(got)).toEqual(['stalled raised']);
    const people = await Promise.all([1, 2, 3].map(() => keep(new TestVolunteer(server.url)).enter({ runId })));
    await Promise.all(people.map((one, i) => one.round([1, 2, 4][i] ?? 1, { size: 0.01, seed: i })));
    await admin.until(runId, ({ run }) => run.state === 'completed');
    await admin.untilAlerts((kinds) => kinds.length === 0);
    await until(() => got.length === 2);
    expect(kindsOf(got)).toEqual(['stalled raised', 'stalled resolved']);
  });

  it('tells of rounds abandoned, merges that fail, NaN uploads and a disk that fills, until a round commits', async () => {
    const folders = makeFolders();
    keep({ close: () => folders.remove() });
    const { got, url: alertWebhook } = await takes();
    // What goes wrong here is meant to.
    const logger = pino({ level: 'silent' });
    const server = keep(await startServer(folders, { alertWebhook, alertEveryMs: 50, alertFreeBytes: 1e18, logger }));
    const admin = keep(new TestAdmin(server.url));
    const { runId } = await admin.request('admin:create', { ...SETTINGS, rounds: 1 });
    await admin.request('admin:start', { runId });
    const people = await Promise.all([1, 2, 3].map(() => keep(new TestVolunteer(server.url)).enter({ runId })));

    // Three volunteers whose training has diverged; then all deliver, and the merge finds a file gone.
    const leases = await Promise.all(people.map((one, i) => one.lease([1, 2, 4][i] ?? 1)));
    const updates = await Promise.all(
      people.map(async (one, i) => {
        const lease = leases[i];
        if (!lease) throw new Error('a lease');
        return { one, lease, factors: train(readFactors(await one.start(lease), lease.grant), 0.01, i) };
      }),
    );
    for (const { one, lease, factors } of updates) {
      const bad = [...factors.values()].map((factor) => ({ ...factor, b: factor.b.map(() => Number.NaN) }));
      await expect(one.send(lease, writeFactors(bad))).rejects.toMatchObject({ code: 'upload-non-finite' });
    }
    await admin.untilAlerts((kinds) => kinds.includes('non-finite-uploads'));
    for (const [i, { one, lease, factors }] of updates.entries()) {
      const first = leases[0]?.start.sha256 ?? '';
      if (i === 2) rmSync(join(folders.dataDir, 'blobs', first.slice(0, 2), first));
      await one.send(lease, writeFactors(factors.values()));
    }
    await admin.until(runId, ({ rounds }) => rounds.length === 1);
    await admin.untilAlerts((kinds) => kinds.includes('merge-failed'));

    for (let round = 2; round <= 3; round++) {
      await Promise.all(people.map((one, i) => one.lease([1, 2, 4][i] ?? 1)));
      await admin.until(runId, (snapshot) => snapshot.round.round === round && snapshot.round.phase === 'training');
      await admin.request('admin:close-round', { runId });
      await admin.until(runId, ({ rounds }) => rounds.length === round);
    }
    const alerts = await admin.untilAlerts((kinds) => kinds.includes('abandoned-rounds'));
    expect(alerts.find(({ kind }) => kind === 'disk-full')).toMatchObject({ run: null });
    await Promise.all(people.map((one, i) => one.round([1, 2, 4][i] ?? 1, { size: 0.01, seed: i })));
    await admin.until(runId, ({ run }) => run.state === 'completed');
    await admin.untilAlerts((kinds) => kinds.join() === 'disk-full');
    await until(() => got.length >= 7);
    expect(kindsOf(got).sort()).toEqual(
      ['disk-full', 'non-finite-uploads', 'merge-failed', 'abandoned-rounds']
        .flatMap((kind) => [`${kind} raised`, `${kind} resolved`])
        .filter((text) => text !== 'disk-full resolved')
        .sort(),
    );
    expect(await fetch(`${server.url}/metrics`).then((reply) => reply.text())).toContain(
      `weft_merge_failures_total{run="${runId}"} 1`,
    );
  });
});
