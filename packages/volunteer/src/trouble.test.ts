// What goes wrong, and that it is survived or told: broken lines, lost leases, lost GPUs, wrong bytes, wrong versions.
import { PROTOCOL_VERSION, ProtocolError } from '@weft/protocol';
import { describe, expect, it } from 'vitest';
import { statusLine } from './state.ts';
import { type Bench, MemoryStorage, makeBench } from './testing/bench.ts';
import { factors } from './testing/blobs.ts';
import { eventually, settle } from './testing/fake-clock.ts';

const count = (bench: Bench, event: string) =>
  bench.coordinator.sent.filter((message) => message.event === event).length;

describe('the line', () => {
  it('breaks in mid-training: the lease goes on after the next handshake', async () => {
    const bench = await makeBench();
    const { session, coordinator, trainer, wire } = bench;
    trainer.holdBefore = 3;
    void session.start();
    await eventually(() => trainer.isHeld, 'training has begun');
    const lease = session.state.lease?.leaseId;
    wire.disconnect();
    expect(session.state.connected).toBe(false);
    expect(session.state.error).toMatchObject({ code: 'disconnected', retrying: true });
    await bench.clock.advance(15_000);
    wire.reconnect();
    await eventually(() => session.state.connected, 'it is connected again');
    await settle();
    expect(session.state.error).toBeNull();
    expect(coordinator.heartbeats.at(-1)).toMatchObject({ leaseId: lease });
    trainer.release();
    await eventually(() => session.state.totals.rounds === 1, 'the round is delivered');
    expect(coordinator.leases).toHaveLength(1);
    expect(count(bench, 'volunteer:hello')).toBe(2);
    expect(coordinator.sent.filter((m) => m.event === 'volunteer:hello').at(-1)?.payload).toMatchObject({
      runId: 'test-run',
    });
    await session.close();
  });

  it('breaks while waiting: the wish is said again', async () => {
    const bench = await makeBench();
    bench.coordinator.automatic = false;
    void bench.session.start();
    await eventually(() => bench.coordinator.waiting !== null, 'it asked for a place');
    bench.wire.disconnect();
    expect(bench.coordinator.waiting).toBeNull();
    expect(statusLine(bench.session.state)).toContain('trying again');
    bench.wire.reconnect();
    await eventually(() => bench.coordinator.waiting !== null, 'it asked again');
    await bench.session.close();
  });

  it('breaks in mid-upload: the upload goes on from the acknowledged offset', async () => {
    const bench = await makeBench({ settings: { ranks: [4096] } });
    const { session, coordinator, wire } = bench;
    let chunks = 0;
    coordinator.intercept = (event) => {
      if (event === 'upload:chunk' && ++chunks === 2) wire.disconnect();
      if (event === 'upload:chunk' && chunks === 2) throw new ProtocolError('internal', 'cut');
      return undefined;
    };
    void session.start();
    await eventually(() => chunks === 2, 'the second chunk was cut');
    await settle();
    wire.reconnect();
    await bench.clock.advance(2_000);
    await eventually(() => session.state.totals.rounds === 1, 'the round is delivered');
    const sent = coordinator.sent.filter((message) => message.event === 'upload:chunk');
    const offsets = sent.map((message) => (message.payload as { offset: number }).offset);
    // Chunk 2 was lost with the line; it alone is sent again.
    expect(offsets).toEqual([0, 131072, 131072]);
    expect(count(bench, 'upload:begin')).toBe(2);
    expect(coordinator.uploads).toHaveLength(1);
    await session.close();
  });

  it('breaks after the commit: the receipt is fetched again', async () => {
    const bench = await makeBench();
    const { session, coordinator, wire } = bench;
    let cut = false;
    coordinator.intercept = (event) => {
      // After the coordinator has kept the upload, before its answer arrives.
      if (event === 'upload:commit' && !cut) {
        cut = true;
        queueMicrotask(() => setImmediate(() => wire.disconnect()));
        return new Promise((resolve) => setTimeout(() => resolve(undefined), 20));
      }
      return undefined;
    };
    void session.start();
    await eventually(() => !session.state.connected && cut, 'the line is cut');
    await new Promise((resolve) => setTimeout(resolve, 40));
    wire.reconnect();
    await bench.clock.advance(2_000);
    await eventually(() => session.state.totals.rounds === 1, 'the receipt is there');
    expect(coordinator.receipts).toHaveLength(1);
    await session.close();
  });

  it('never has more than two chunks unanswered', async () => {
    const bench = await makeBench({ settings: { ranks: [4096], localSteps: 1 } });
    const { session, coordinator } = bench;
    let open = 0;
    let most = 0;
    coordinator.intercept = async (event) => {
      if (event !== 'upload:chunk') return undefined;
      most = Math.max(most, ++open);
      await new Promise((resolve) => setTimeout(resolve, 5));
      open -= 1;
      return undefined;
    };
    void session.start();
    await eventually(() => session.state.totals.rounds === 1, 'the round is delivered');
    expect(count(bench, 'upload:chunk')).toBe(2);
    expect(most).toBe(2);
    await session.close();
  });

  it('honours the time the server asks for', async () => {
    const bench = await makeBench();
    let refusals = 0;
    bench.coordinator.intercept = (event) => {
      if (event !== 'round:join' || refusals > 0) return undefined;
      refusals += 1;
      throw new ProtocolError('rate-limited', 'Too much.', { retryAfterMs: 4_000 });
    };
    void bench.session.start();
    await eventually(() => refusals === 1, 'it was refused');
    await bench.clock.advance(3_900);
    expect(count(bench, 'round:join')).toBe(1);
    await bench.clock.advance(1_200);
    await eventually(() => bench.session.state.totals.rounds === 1, 'the round is delivered');
    await bench.session.close();
  });

  it('waits for a server that has no run yet', async () => {
    const bench = await makeBench();
    let refusals = 0;
    bench.coordinator.intercept = (event) => {
      if (event !== 'volunteer:hello' || refusals > 0) return undefined;
      refusals += 1;
      throw new ProtocolError('unknown-run', 'The server has no run yet.', { retryAfterMs: 10_000 });
    };
    const ready = bench.session.prepare();
    await eventually(() => refusals === 1, 'it was refused');
    await settle();
    expect(statusLine(bench.session.state)).toBe('The server has no run yet. Trying again.');
    await bench.clock.advance(10_000);
    await ready;
    expect(bench.session.state.stage).toBe('ready');
  });
});

describe('the server says no', () => {
  it('speaks another protocol version: told as it is, not repeated', async () => {
    const bench = await makeBench();
    bench.coordinator.protocolVersion = 99;
    await expect(bench.session.prepare()).rejects.toMatchObject({ code: 'protocol-version' });
    expect(bench.session.state.stage).toBe('failed');
    expect(bench.session.state.error).toMatchObject({ code: 'protocol-version', retrying: false });
    await bench.clock.advance(60_000);
    expect(count(bench, 'volunteer:hello')).toBe(1);
    // The server has been updated meanwhile.
    bench.coordinator.protocolVersion = PROTOCOL_VERSION;
    await bench.session.prepare();
    expect(bench.session.state.stage).toBe('ready');
  });

  it('runs out the lease: told why, and the volunteer joins again', async () => {
    const bench = await makeBench();
    const { session, coordinator, trainer } = bench;
    trainer.holdBefore = 2;
    void session.start();
    await eventually(() => trainer.isHeld, 'training has begun');
    coordinator.expire();
    await bench.clock.advance(10_000);
    await eventually(() => trainer.jobs.length === 2, 'it trains under a new lease');
    expect(coordinator.leases).toHaveLength(2);
    expect(coordinator.releases).toEqual([]);
    trainer.release();
    await eventually(() => session.state.totals.rounds === 1, 'the round is delivered');
    await session.close();
  });

  it('revokes the lease with its reason', async () => {
    const bench = await makeBench();
    const { session, coordinator, trainer } = bench;
    trainer.holdBefore = 2;
    void session.start();
    await eventually(() => trainer.isHeld, 'training has begun');
    coordinator.automatic = false;
    coordinator.revoke('The round has the uploads it needs.');
    await eventually(() => coordinator.waiting !== null, 'it waits for the next round');
    expect(session.state.note).toBe('Round 1 went on without this update. The round has the uploads it needs.');
    expect(session.state.lease).toBeNull();
    await session.close();
  });

  it('revokes the lease with time for late work: what has begun is delivered', async () => {
    const bench = await makeBench();
    const { session, coordinator, trainer } = bench;
    trainer.holdBefore = 2;
    void session.start();
    await eventually(() => trainer.isHeld, 'training has begun');
    coordinator.automatic = false;
    coordinator.revoke('The round has the uploads it needs.', 30_000);
    expect(session.state.note).toBe('The round has the uploads it needs. The update may still be delivered for 30 s.');
    trainer.release();
    await eventually(() => session.state.totals.rounds === 1, 'the update is delivered late');
    await session.close();
  });

  it('gives late work up when its time is over', async () => {
    const bench = await makeBench();
    const { session, coordinator, trainer, clock } = bench;
    trainer.holdBefore = 2;
    void session.start();
    await eventually(() => trainer.isHeld, 'training has begun');
    coordinator.automatic = false;
    coordinator.revoke('The round has the uploads it needs.', 30_000);
    await clock.advance(30_000);
    const note =
      'Round 1 went on without this update. The round has the uploads it needs. The time for late work is over.';
    await eventually(() => session.state.note === note, 'it has given up');
    expect(session.state.totals.rounds).toBe(0);
    await session.close();
  });

  it('has nothing to deliver late before the first step', async () => {
    const bench = await makeBench();
    const { session, coordinator, trainer } = bench;
    trainer.holdBefore = 1;
    void session.start();
    await eventually(() => trainer.isHeld, 'training is about to begin');
    coordinator.automatic = false;
    coordinator.revoke('The round has the uploads it needs.', 30_000);
    const note = 'Round 1 went on without this update. The round has the uploads it needs.';
    await eventually(() => session.state.note === note, 'it has given up');
    await session.close();
  });

  it('pauses the run: the volunteer waits and says so, then goes on', async () => {
    const bench = await makeBench();
    const { session, coordinator } = bench;
    coordinator.setRun({ state: 'paused' });
    coordinator.enter('abandoned');
    void session.start();
    await eventually(() => session.state.waitingFor !== null, 'it waits');
    expect(session.state.waitingFor).toBe(
      'The operator has paused the run. Training goes on when it is resumed; you need not do anything.',
    );
    coordinator.setRun({ state: 'running' });
    coordinator.setRound({ round: 2, phase: 'selecting' });
    await bench.clock.advance(10_000);
    await eventually(() => session.state.totals.rounds === 1, 'a round is delivered');
    await session.close();
  });

  it('has completed the run: an end, not an error', async () => {
    const bench = await makeBench();
    const { session, coordinator } = bench;
    await session.prepare();
    coordinator.run = { ...coordinator.run, state: 'completed', outcome: 'Committed 3 rounds.' };
    const running = session.start();
    await eventually(() => count(bench, 'round:join') === 1, 'it asked');
    coordinator.setRun({});
    await running;
    expect(session.state).toMatchObject({ stage: 'finished', outcome: 'Committed 3 rounds.', error: null });
  });

  it('refuses an upload: the lease goes back, the next round is tried, a second refusal ends the session', async () => {
    const bench = await makeBench();
    const { session, coordinator } = bench;
    coordinator.intercept = (event) => {
      if (event === 'upload:commit') throw new ProtocolError('upload-norm', 'Too far from its start.');
      return undefined;
    };
    const running = session.start();
    const failed = expect(running).rejects.toMatchObject({ code: 'upload-norm' });
    await eventually(() => coordinator.releases.length === 1, 'the lease was given back');
    expect(coordinator.releases[0]?.reason).toBe('failed');
    await bench.clock.advance(10_000);
    await failed;
    expect(session.state).toMatchObject({ stage: 'failed', error: { code: 'upload-norm', retrying: false } });
  });
});

describe('the GPU', () => {
  it.each(['device-lost', 'out-of-memory'] as const)(
    '%s: releases under that name, goes on one rank smaller',
    async (code) => {
      const bench = await makeBench();
      const { session, coordinator, trainer, reopened } = bench;
      trainer.failWith = code;
      void session.start();
      await eventually(() => session.state.totals.rounds === 1, 'the round is delivered after all');
      expect(coordinator.releases).toMatchObject([{ reason: code }]);
      expect(coordinator.leases.map((lease) => lease.grant.rank)).toEqual([8, 4]);
      expect(trainer.closed).toBe(true);
      expect(reopened).toHaveLength(1);
      const verdict = session.state.proposal?.verdicts.find(({ rank }) => rank === 8);
      expect(verdict).toMatchObject({ fits: false });
      expect(verdict?.reason).toMatch(/at rank 8 during this visit/);
      expect(session.state.proposal?.ownLimits.maxRank).toBeNull();
      await session.close();
    },
  );

  it('is lost where no fresh device can be had: told, with what was kept and what to do', async () => {
    const bench = await makeBench({ canReopen: false });
    bench.trainer.failWith = 'device-lost';
    await expect(bench.session.start()).rejects.toMatchObject({ code: 'device-lost' });
    expect(bench.session.state.error?.message).toBe(
      'The GPU was lost at rank 8, and no new device can be opened here. The lease was given back and the model is kept; close other programs that use the GPU, then start again.',
    );
    expect(bench.coordinator.releases).toMatchObject([{ reason: 'device-lost' }]);
  });

  it('is lost at the smallest rank: fails, and a new start tries a fresh device', async () => {
    const bench = await makeBench({ settings: { ranks: [2] } });
    bench.trainer.failWith = 'device-lost';
    await expect(bench.session.start()).rejects.toMatchObject({ code: 'device-lost' });
    void bench.session.start();
    await eventually(() => bench.session.state.totals.rounds === 1, 'a round is delivered');
    expect(bench.reopened).toHaveLength(1);
    await bench.session.close();
  });

  it('diverges: the update is not sent, the next round starts afresh', async () => {
    const bench = await makeBench();
    const { session, coordinator, trainer } = bench;
    trainer.lossOf = (step) => (step === 2 ? Number.NaN : 1);
    void session.start();
    await eventually(() => coordinator.releases.length === 1, 'the lease was given back');
    expect(coordinator.releases[0]?.reason).toBe('failed');
    await eventually(() => session.state.note?.startsWith('The loss became NaN at step 2') ?? false, 'it is told');
    trainer.lossOf = () => 1;
    await bench.clock.advance(10_000);
    await eventually(() => session.state.totals.rounds === 1, 'the next attempt is delivered');
    expect(coordinator.uploads).toHaveLength(1);
    await session.close();
  });
});

describe('wrong bytes', () => {
  it('resumes a broken download: pieces of the last visit are not fetched again', async () => {
    const model = new Map([['model.safetensors', new Uint8Array(1000).map((_, i) => i % 7)]]);
    const storage = new MemoryStorage();
    const first = await makeBench({ model, pieceBytes: 256, storage });
    let served = 0;
    first.coordinator.tamper = (_sha256, _begin, bytes) => {
      if (++served > 2) throw new ProtocolError('not-found', 'The server went away.');
      return bytes;
    };
    await expect(first.session.prepare()).rejects.toMatchObject({ code: 'not-found' });
    const second = await makeBench({ model, pieceBytes: 256, storage });
    const seen: number[] = [];
    second.session.subscribe(({ download }) => {
      if (download) seen.push(download.bytes);
    });
    await second.session.prepare();
    expect(second.coordinator.ranges.map((range) => range.begin)).toEqual([512, 768]);
    expect(seen.at(-1)).toBe(1000);
    // A third visit fetches nothing.
    const third = await makeBench({ model, pieceBytes: 256, storage });
    await third.session.prepare();
    expect(third.coordinator.ranges).toEqual([]);
  });

  it('goes on after the network broke off, with the time it waits told', async () => {
    const bench = await makeBench();
    let breaks = 0;
    const { range } = bench.coordinator.downloads;
    Object.assign(bench.coordinator.downloads, {
      range: (...args: Parameters<typeof range>) => {
        if (breaks++ === 0)
          return Promise.reject(new ProtocolError('rate-limited', 'Slow down.', { retryAfterMs: 500 }));
        return range(...args);
      },
    });
    const ready = bench.session.prepare();
    await eventually(() => bench.session.state.error?.retrying === true, 'it tells that it tries again');
    await bench.clock.advance(2_000);
    await ready;
    expect(bench.session.state.error).toBeNull();
  });

  it('fetches a damaged stored piece again', async () => {
    const storage = new MemoryStorage();
    const first = await makeBench({ pieceBytes: 256, storage });
    await first.session.prepare();
    for (const bytes of storage.files.values()) if (bytes.length === 1000) bytes[300] = (bytes[300] ?? 0) ^ 1;
    const second = await makeBench({ pieceBytes: 256, storage });
    await second.session.prepare();
    expect(second.coordinator.ranges.map((range) => range.begin)).toEqual([256]);
  });

  it('refuses a piece with another hash, names it, and stores none of it', async () => {
    const bench = await makeBench({ pieceBytes: 256 });
    bench.coordinator.tamper = (_sha256, begin, bytes) => (begin === 256 ? bytes.map((byte) => byte ^ 1) : bytes);
    await expect(bench.session.prepare()).rejects.toMatchObject({ code: 'piece-hash' });
    expect(bench.session.state.error?.message).toContain('Piece 2 of 4 of model.safetensors');
    const model = [...bench.storage.files.values()].map((bytes) => bytes.length);
    expect(model).toContain(256);
    expect(model).not.toContain(1000);
  });

  it('refuses a manifest that the run does not announce', async () => {
    const bench = await makeBench();
    bench.coordinator.manifest = { ...bench.coordinator.manifest, pieceBytes: 128 };
    await expect(bench.session.prepare()).rejects.toMatchObject({ code: 'manifest-hash' });
    expect(bench.coordinator.ranges).toEqual([]);
  });

  it('refuses conditions that do not have the announced run hash', async () => {
    const bench = await makeBench();
    const { identity } = bench.coordinator.run;
    bench.coordinator.run = { ...bench.coordinator.run, identity: { ...identity, sequenceLength: 7 } };
    await expect(bench.session.prepare()).rejects.toMatchObject({ code: 'run-hash' });
  });

  it('refuses start weights with another hash, and gives the lease back', async () => {
    const bench = await makeBench();
    await bench.session.prepare();
    bench.coordinator.tamper = (_sha256, _begin, bytes) => bytes.map((byte) => byte ^ 1);
    await expect(bench.session.start()).rejects.toMatchObject({ code: 'start-hash' });
    expect(bench.coordinator.releases).toMatchObject([{ reason: 'failed' }]);
    expect(bench.trainer.jobs).toHaveLength(0);
  });

  it('refuses start weights of another rank than granted', async () => {
    const bench = await makeBench();
    bench.coordinator.startRank = 4;
    await expect(bench.session.start()).rejects.toMatchObject({ code: 'start-rank' });
    expect(bench.session.state.error?.message).toContain('lora_A.weight is [4, 6], granted was rank 8');
    expect(bench.trainer.jobs).toHaveLength(0);
  });

  it('never sends an update of another rank than granted', async () => {
    const bench = await makeBench();
    bench.trainer.spoil = () => factors(2, 1);
    await expect(bench.session.start()).rejects.toMatchObject({ code: 'update-rank' });
    expect(count(bench, 'upload:begin')).toBe(0);
    expect(bench.coordinator.releases).toMatchObject([{ reason: 'failed' }]);
  });

  it('tells a full disk', async () => {
    const storage = new MemoryStorage();
    storage.fullAt = 500;
    const bench = await makeBench({ storage });
    await expect(bench.session.prepare()).rejects.toMatchObject({ code: 'storage-full' });
    expect(bench.session.state.error).toMatchObject({ code: 'storage-full', retrying: false });
  });
});
