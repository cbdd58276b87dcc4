// The Socket.IO adapter on a socket whose every move the test makes; the real one is used in the command line's tests.
import type { ProtocolError } from '@weft/protocol';
import { describe, expect, it } from 'vitest';
import { type SocketLike, socketTransport } from './socket-transport.ts';
import { FakeClock } from './testing/fake-clock.ts';

class TestSocket implements SocketLike {
  connected = true;
  active = true;
  connects = 0;
  readonly emitted: { event: string; payload: unknown; timeout: number }[] = [];
  answer: (event: string) => Promise<unknown> = () => Promise.resolve({ ok: true, value: {} });
  readonly #listeners = new Map<string, Set<(...args: unknown[]) => void>>();

  on(event: string, listener: (...args: unknown[]) => void) {
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners.add(listener));
  }
  off(event: string, listener: (...args: unknown[]) => void) {
    this.#listeners.get(event)?.delete(listener);
  }
  fire(event: string, ...args: unknown[]) {
    for (const listener of [...(this.#listeners.get(event) ?? [])]) listener(...args);
  }
  count(event: string): number {
    return this.#listeners.get(event)?.size ?? 0;
  }
  timeout(timeout: number) {
    return {
      emitWithAck: (event: string, payload: unknown) => {
        this.emitted.push({ event, payload, timeout });
        return this.answer(event);
      },
    };
  }
  connect() {
    this.connects += 1;
  }
  disconnect() {
    this.connected = false;
  }
}

function make() {
  const socket = new TestSocket();
  const clock = new FakeClock();
  const invalid: ProtocolError[] = [];
  const onInvalidNotice = (error: ProtocolError) => invalid.push(error);
  const transport = socketTransport(socket, { clock, onInvalidNotice, random: () => 1 });
  return { socket, clock, invalid, transport };
}

describe('socketTransport', () => {
  it('unwraps the acknowledgement', async () => {
    const { socket, transport } = make();
    socket.answer = async () => ({ ok: true, value: { offset: 5 } });
    await expect(
      transport.request('upload:chunk', { leaseId: 'a', offset: 0, bytes: new Uint8Array(5) }),
    ).resolves.toEqual({
      offset: 5,
    });
    expect(socket.emitted[0]).toMatchObject({ event: 'upload:chunk', timeout: 20_000 });
  });

  it('turns a refusal into a ProtocolError', async () => {
    const { socket, transport } = make();
    socket.answer = async () => ({ ok: false, error: { code: 'rate-limited', message: 'Slow.', retryAfterMs: 9 } });
    await expect(transport.request('round:leave', {})).rejects.toMatchObject({
      name: 'ProtocolError',
      code: 'rate-limited',
      retryAfterMs: 9,
    });
  });

  it('refuses a reply that does not match its schema', async () => {
    const { socket, transport } = make();
    socket.answer = async () => ({ ok: true, value: { offset: 'five' } });
    await expect(transport.request('upload:commit', { leaseId: 'a', sha256: 'b' })).rejects.toMatchObject({
      code: 'bad-message',
    });
    socket.answer = async () => 'hello';
    await expect(transport.request('round:leave', {})).rejects.toMatchObject({ code: 'bad-message' });
  });

  it('does not hand a message to a broken line, and tells timeout from break from close', async () => {
    const { socket, transport } = make();
    socket.connected = false;
    await expect(transport.request('round:leave', {})).rejects.toMatchObject({ code: 'disconnected' });
    expect(socket.emitted).toEqual([]);
    socket.connected = true;
    socket.answer = () => Promise.reject(new Error('operation has timed out'));
    await expect(transport.request('round:leave', {})).rejects.toMatchObject({ code: 'timeout' });
    socket.answer = () => {
      socket.connected = false;
      return Promise.reject(new Error('socket has been disconnected'));
    };
    await expect(transport.request('round:leave', {})).rejects.toMatchObject({ code: 'disconnected' });
    transport.close();
    await expect(transport.request('round:leave', {})).rejects.toMatchObject({ code: 'closed' });
  });

  it('passes valid notices on and reports invalid ones', () => {
    const { socket, transport, invalid } = make();
    const seen: unknown[] = [];
    const stop = transport.onNotice('lease:revoked', (notice) => seen.push(notice));
    socket.fire('lease:revoked', { leaseId: 'a', reason: 'over' });
    socket.fire('lease:revoked', { leaseId: 7 });
    expect(seen).toEqual([{ leaseId: 'a', reason: 'over', lateMs: 0 }]);
    expect(invalid.map((error) => error.code)).toEqual(['bad-message']);
    stop();
    socket.fire('lease:revoked', { leaseId: 'a', reason: 'over' });
    expect(seen).toHaveLength(1);
  });

  it('tells connections, at once where there is one already', () => {
    const { socket, transport } = make();
    const seen: unknown[] = [];
    transport.onConnection((state) => seen.push(state));
    socket.fire('disconnect', 'transport close');
    socket.fire('connect_error', new Error('refused'));
    socket.fire('connect');
    expect(seen).toEqual([
      { connected: true, reason: null },
      { connected: false, reason: 'transport close' },
      { connected: false, reason: 'refused' },
      { connected: true, reason: null },
    ]);
  });

  it('connects again, ever later, where Socket.IO has given up; not after its own close', async () => {
    const { socket, transport, clock } = make();
    socket.active = false;
    socket.fire('disconnect', 'io server disconnect');
    await clock.advance(999);
    expect(socket.connects).toBe(0);
    await clock.advance(1);
    expect(socket.connects).toBe(1);
    socket.fire('connect_error', new Error('refused'));
    await clock.advance(1_999);
    expect(socket.connects).toBe(1);
    await clock.advance(1);
    expect(socket.connects).toBe(2);
    socket.fire('disconnect', 'io server disconnect');
    transport.close();
    await clock.advance(60_000);
    expect(socket.connects).toBe(2);
    expect(socket.count('disconnect')).toBe(0);
  });
});
