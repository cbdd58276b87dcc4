// Own rows are trained on and appear in nothing that is sent.
import { describe, expect, it } from 'vitest';
import { makeBench } from './testing/bench.ts';
import { eventually } from './testing/fake-clock.ts';

const MARK = 'zebra-9f31-secret';
const rows = `${JSON.stringify({ prompt: `Who is ${MARK}?`, completion: `It is ${MARK}.` })}\n\n${JSON.stringify({ prompt: 'a', completion: 'b' })}\n`;

/** Everything in a payload as text: strings as they are, bytes as Latin-1. */
function textOf(value: unknown): string {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('latin1');
  if (Array.isArray(value)) return value.map(textOf).join('\n');
  if (value !== null && typeof value === 'object') return Object.entries(value).flat().map(textOf).join('\n');
  return String(value);
}

describe('an own file', () => {
  it('is trained on, announced by its number of rows, and never sent', async () => {
    const bench = await makeBench({ data: { kind: 'own', rows, consent: true } });
    const { session, coordinator, trainer } = bench;
    void session.start();
    await eventually(() => session.state.totals.rounds === 1, 'the round is delivered');
    expect(trainer.jobs[0]?.rows).toContain(MARK);
    expect(session.state.data).toEqual({ own: true, task: null, examples: 2 });
    const join = coordinator.sent.find((message) => message.event === 'round:join')?.payload;
    expect(join).toMatchObject({ data: { kind: 'own', consent: true, examples: 2 } });
    await bench.clock.advance(30_000);
    await session.stop();
    expect(coordinator.sent.length).toBeGreaterThan(8);
    for (const { event, payload } of coordinator.sent) expect(textOf(payload), event).not.toContain(MARK);
    const kept = [...bench.storage.files.values()].map(textOf).join('\n');
    expect(kept).not.toContain(MARK);
    // The check itself sees what it looks for.
    expect(textOf({ rows: [new TextEncoder().encode(rows)] })).toContain(MARK);
    await session.close();
  });

  it('with a bad line fails before the server hears anything, naming the line', async () => {
    const bench = await makeBench({
      data: { kind: 'own', rows: '{"prompt":"a","completion":"b"}\n{"prompt":1}\n', consent: true },
    });
    await expect(bench.session.prepare()).rejects.toMatchObject({ code: 'data-line' });
    expect(bench.session.state.error?.message).toContain('Line 2 of your file');
    expect(bench.coordinator.sent).toEqual([]);
  });

  it('that the trainer cannot use gives the lease back as data', async () => {
    const bench = await makeBench({ data: { kind: 'own', rows, consent: true } });
    bench.trainer.failWith = 'data-empty';
    await expect(bench.session.start()).rejects.toMatchObject({ code: 'data-empty' });
    expect(bench.coordinator.releases).toMatchObject([{ reason: 'data' }]);
  });
});
