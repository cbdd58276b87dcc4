// A volunteer's session against the in-memory coordinator: rounds as they should go, and what the owner may do.
import { readSafetensors, writeSafetensors } from '@weft/formats';
import { describe, expect, it } from 'vitest';
import { statusLine, totalsLine } from './state.ts';
import { type Bench, makeBench, NO_LIMITS } from './testing/bench.ts';
import { elements, factors, MODULE } from './testing/blobs.ts';
import { eventually, settle } from './testing/fake-clock.ts';

const events = (bench: Bench) => bench.coordinator.sent.map((message) => message.event);
const loraA = (bytes: Uint8Array) => readSafetensors(bytes).tensors.get(`base_model.model.${MODULE}.lora_A.weight`);

describe('prepare', () => {
  it('connects, fetches the model and proposes a rank before anything is joined', async () => {
    const bench = await makeBench();
    const stages: string[] = [];
    bench.session.subscribe(({ stage }) => {
      if (stages.at(-1) !== stage) stages.push(stage);
    });
    await bench.session.prepare();
    expect(stages).toEqual(['new', 'connecting', 'downloading', 'preparing', 'ready']);
    const { state } = bench.session;
    expect(state.proposal?.rank).toBe(8);
    expect(state.device?.adapter.description).toBe('Test GPU');
    expect(state.clientId).toBe('client-1');
    expect(state.connected).toBe(true);
    expect(statusLine(state)).toBe('Ready · rank 8');
    expect(events(bench)).toEqual(['volunteer:hello', 'volunteer:prove']);
    expect([...bench.storage.files.keys()].every((key) => /^blobs\/[0-9a-f]{64}$/.test(key))).toBe(true);
  });

  it('does its work once', async () => {
    const bench = await makeBench();
    await Promise.all([bench.session.prepare(), bench.session.prepare()]);
    const fetched = bench.coordinator.ranges.length;
    await bench.session.prepare();
    expect(bench.coordinator.ranges.length).toBe(fetched);
  });

  it('proposes anew when the limits change, also after none fitted', async () => {
    const bench = await makeBench({ ownLimits: { ...NO_LIMITS, maxMemoryBytes: 10 } });
    await expect(bench.session.prepare()).rejects.toMatchObject({ code: 'no-rank-fits' });
    expect(bench.session.state.stage).toBe('failed');
    await bench.session.setOwnLimits({ ...NO_LIMITS, maxMemoryBytes: 4_500_000 });
    await bench.session.prepare();
    expect(bench.session.state.stage).toBe('ready');
    expect(bench.session.state.error).toBeNull();
    expect(bench.session.state.proposal?.rank).toBe(4);
  });
});

describe('rounds', () => {
  it('trains at the granted rank, delivers, and goes on until the run ends', async () => {
    const bench = await makeBench({ settings: { rounds: 2 } });
    const { session, coordinator, trainer } = bench;
    const statuses: string[] = [];
    session.subscribe((state) => statuses.push(statusLine(state)));
    const running = session.start();
    await eventually(() => session.state.totals.rounds === 1, 'round 1 is delivered');
    const compiling = statuses.indexOf('Training on your GPU · compiling kernels 1 of 2');
    expect(compiling).toBeGreaterThan(0);
    expect(statuses[compiling + 1]).toBe('Training on your GPU · preparing the first step');
    expect(loraA(trainer.jobs[0]?.start ?? new Uint8Array())?.shape).toEqual([8, 6]);
    expect(loraA(coordinator.uploads[0] ?? new Uint8Array())?.shape).toEqual([8, 6]);
    expect(trainer.jobs[0]?.rows).toContain('train of yesno');
    expect(session.state.losses.map((point) => point.step)).toEqual([1, 2, 3, 4]);
    await eventually(() => session.state.waitingFor !== null, 'it waits for the next round');
    expect(session.state.waitingFor).toBe('You wait.');

    coordinator.commitRound();
    await bench.clock.advance(10_000);
    await eventually(() => session.state.totals.rounds === 2, 'round 2 is delivered');
    // Round 2 starts from what was redistributed: version 1's factors.
    expect(trainer.jobs[1]?.start).toEqual(factors(8, 1));
    expect(session.state.receipts.map((receipt) => receipt.round)).toEqual([1, 2]);
    // Nothing has changed, so the trainer kept its plan: it was asked for a rank once.
    expect(trainer.limits).toHaveLength(1);
    expect(totalsLine(session.state)).toBe('2 rounds helped · 80 tokens');

    coordinator.setRun({ state: 'completed', outcome: 'Committed 2 rounds.' });
    await running;
    expect(session.state.stage).toBe('finished');
    expect(session.state.outcome).toBe('Committed 2 rounds.');
    expect(session.state.lease).toBeNull();
  });

  it('trains beside the frozen adapter its lease comes with', async () => {
    const bench = await makeBench({ settings: { rounds: 1 } });
    bench.coordinator.side = factors(3, 7);
    const told = new Set<string>();
    bench.session.subscribe(({ download }) => download && told.add(download.what));
    void bench.session.start();
    await eventually(() => bench.session.state.totals.rounds === 1, 'the round is delivered');
    expect(bench.trainer.jobs[0]?.side).toEqual(factors(3, 7));
    // What is sent is what was trained, at its rank, and nothing of what stood beside it.
    expect(loraA(bench.coordinator.uploads[0] ?? new Uint8Array())?.shape).toEqual([8, 6]);
    expect([...told]).toContain('weights to train beside');
    await bench.session.close();
  });

  it('does not train beside what is no adapter of its run', async () => {
    const bench = await makeBench();
    bench.coordinator.side = writeSafetensors([
      {
        name: 'base_model.model.model.layers.0.mlp.up_proj.lora_A.weight',
        dtype: 'F32',
        shape: [1, 6],
        data: new Float32Array(6),
      },
    ]);
    await expect(bench.session.start()).rejects.toMatchObject({ code: 'start-rank' });
    expect(bench.trainer.jobs).toEqual([]);
  });

  it('trains elements while the run’s updates are sparse, and factors after that', async () => {
    const bench = await makeBench({ settings: { rounds: 2, sparseRounds: 1, sparseDensity: 0.5 } });
    void bench.session.start();
    await eventually(() => bench.session.state.totals.rounds === 1, 'round 1 is delivered');
    bench.coordinator.commitRound();
    await bench.clock.advance(10_000);
    await eventually(() => bench.session.state.totals.rounds === 2, 'round 2 is delivered');
    const [first, second] = bench.trainer.jobs;
    expect(first?.training.sparse).toEqual({ density: 0.5, seed: 'weft' });
    expect(first?.start).toEqual(elements(0));
    expect(second?.training.sparse).toBeNull();
    const sent = bench.coordinator.uploads.map((bytes) => readSafetensors(bytes).tensors);
    expect([...(sent[0] ?? [])].map(([name, { shape }]) => [name, shape])).toEqual([
      ['model.layers.0.self_attn.q_proj.sparse_delta', [4, 12]],
    ]);
    expect(loraA(bench.coordinator.uploads[1] ?? new Uint8Array())?.shape).toEqual([8, 6]);
    await bench.session.close();
  });

  it('does not train factors where elements were granted', async () => {
    const bench = await makeBench({ settings: { sparseRounds: 1 } });
    bench.coordinator.startRank = 8;
    await expect(bench.session.start()).rejects.toMatchObject({
      code: 'start-rank',
      message: expect.stringContaining('holds no elements of a granted matrix'),
    });
    expect(bench.trainer.jobs).toEqual([]);
  });

  it('tells what it sends: the announcement matches the bytes', async () => {
    const bench = await makeBench();
    void bench.session.start();
    await eventually(() => bench.session.state.totals.rounds === 1, 'round 1 is delivered');
    const begin = bench.coordinator.sent.find((message) => message.event === 'upload:begin')?.payload;
    expect(begin).toMatchObject({
      dtype: 'F32',
      steps: 4,
      targetTokens: 40,
      examples: 32,
      runHash: bench.coordinator.run.runHash,
    });
    expect(begin).toMatchObject({ bytes: bench.coordinator.uploads[0]?.length });
    await bench.session.close();
  });

  it('takes a lease that comes by notice, and waits until the round trains', async () => {
    const bench = await makeBench();
    const { session, coordinator, trainer } = bench;
    coordinator.automatic = false;
    void session.start();
    await eventually(() => coordinator.waiting !== null, 'it asked for a place');
    await coordinator.grant();
    await eventually(
      () => session.state.waitingFor?.startsWith('Waiting for the round') ?? false,
      'it waits for the others',
    );
    expect(session.state.waitingFor).toBe('Waiting for the round to open (0 of 4 volunteers are here).');
    expect(trainer.jobs).toHaveLength(0);
    coordinator.setRound({ training: 2, reason: 'Waiting for the round to open (2 of 4 volunteers are here).' });
    await settle();
    expect(session.state.waitingFor).toBe('Waiting for the round to open (2 of 4 volunteers are here).');
    coordinator.enter('training', 60_000);
    await eventually(() => session.state.totals.rounds === 1, 'the round is delivered');
    await session.close();
  });

  it('asks again after the time the server named', async () => {
    const bench = await makeBench();
    bench.coordinator.automatic = false;
    void bench.session.start();
    await eventually(() => bench.coordinator.waiting !== null, 'it asked for a place');
    const asked = () => events(bench).filter((event) => event === 'round:join').length;
    expect(asked()).toBe(1);
    await bench.clock.advance(9_000);
    expect(asked()).toBe(1);
    await bench.clock.advance(1_500);
    expect(asked()).toBe(2);
    await bench.session.close();
  });

  it('proposes anew each round: the rank changes between rounds, not within one', async () => {
    const bench = await makeBench();
    const { session, coordinator, trainer } = bench;
    trainer.holdBefore = 2;
    void session.start();
    await eventually(() => trainer.isHeld, 'training has begun');
    void session.setOwnLimits({ ...NO_LIMITS, maxRank: 2 });
    await settle();
    expect(session.state.lease?.grant.rank).toBe(8);
    trainer.release();
    await eventually(() => session.state.totals.rounds === 1, 'round 1 is delivered');
    coordinator.commitRound();
    await bench.clock.advance(10_000);
    await eventually(() => session.state.totals.rounds === 2, 'round 2 is delivered');
    expect(coordinator.leases.map((lease) => lease.grant.rank)).toEqual([8, 2]);
    expect(coordinator.uploads.map((upload) => loraA(upload)?.shape[0])).toEqual([8, 2]);
    expect(coordinator.uploads[0]?.length).toBeGreaterThan(coordinator.uploads[1]?.length ?? 0);
    await session.close();
  });

  it('asks again at once when the limits change while it waits', async () => {
    const bench = await makeBench();
    const { session, coordinator } = bench;
    coordinator.automatic = false;
    void session.start();
    await eventually(() => coordinator.waiting?.proposal.rank === 8, 'it asked for rank 8');
    void session.setOwnLimits({ ...NO_LIMITS, maxRank: 4 });
    await eventually(() => coordinator.waiting?.proposal.rank === 4, 'it asked for rank 4');
    await session.close();
  });

  it('changes its data between rounds', async () => {
    const bench = await makeBench();
    const { session, coordinator, trainer } = bench;
    trainer.holdBefore = 2;
    void session.start();
    await eventually(() => trainer.isHeld, 'training has begun');
    session.setData({ kind: 'task', task: 'colour' });
    trainer.release();
    await eventually(() => session.state.totals.rounds === 1, 'round 1 is delivered');
    coordinator.commitRound();
    await bench.clock.advance(10_000);
    await eventually(() => session.state.totals.rounds === 2, 'round 2 is delivered');
    expect(trainer.jobs.map((job) => job.rows.includes('train of colour'))).toEqual([false, true]);
    expect(() => session.setData({ kind: 'own', rows: 'no', consent: true })).toThrow(/Line 1 of your file/);
    expect(session.state.data).toMatchObject({ own: false, task: 'colour' });
    await session.close();
  });

  it('exchanges a lease whose wish has changed while it was on its way', async () => {
    const bench = await makeBench({ settings: { ranks: [2, 4] } });
    const { session, coordinator, trainer } = bench;
    const own = { kind: 'own', rows: '{"prompt":"a","completion":"b"}', consent: true } as const;
    let joins = 0;
    coordinator.intercept = (event) => {
      if (event === 'round:join' && ++joins === 1) {
        void session.setOwnLimits({ ...NO_LIMITS, maxRank: 2 });
        session.setData(own);
      }
      return undefined;
    };
    void session.start();
    await eventually(() => session.state.totals.rounds === 1, 'the round is delivered');
    expect(trainer.jobs.map((job) => [job.grant.rank, job.rows])).toEqual([[2, own.rows]]);
    expect(coordinator.leases.map((lease) => lease.task)).toEqual(['yesno', null]);
    await session.close();
  });

  it('sends heartbeats with its progress, and says when the tab is hidden', async () => {
    let hidden = false;
    const bench = await makeBench({ hidden: () => hidden });
    const { session, coordinator, trainer } = bench;
    trainer.holdBefore = 3;
    void session.start();
    await eventually(() => trainer.isHeld, 'training has begun');
    await settle();
    const before = coordinator.heartbeats.length;
    await bench.clock.advance(10_000);
    expect(coordinator.heartbeats.length).toBe(before + 1);
    expect(coordinator.heartbeats.at(-1)).toMatchObject({
      hidden: false,
      paused: false,
      progress: { stage: 'training', step: 2, steps: 4, targetTokens: 20 },
    });
    hidden = true;
    session.visibilityChanged();
    await settle();
    expect(coordinator.heartbeats.at(-1)?.hidden).toBe(true);
    await session.close();
  });

  it('delivers what it has when the deadline comes near', async () => {
    const bench = await makeBench();
    const { session, coordinator, trainer } = bench;
    trainer.holdBefore = 3;
    void session.start();
    await eventually(() => trainer.isHeld, 'training has begun');
    coordinator.enter('training', 10_000);
    await bench.clock.advance(9_000);
    trainer.release();
    await eventually(() => session.state.totals.rounds === 1, 'the round is delivered');
    expect(coordinator.sent.find((message) => message.event === 'upload:begin')?.payload).toMatchObject({ steps: 3 });
    await session.close();
  });
});

describe('the owner', () => {
  it('pauses and resumes: no step in between, the lease lives on', async () => {
    const bench = await makeBench();
    const { session, coordinator, trainer } = bench;
    trainer.holdBefore = 2;
    void session.start();
    await eventually(() => trainer.isHeld, 'training has begun');
    session.pause();
    trainer.release();
    await settle();
    await bench.clock.advance(20_000);
    expect(session.state.stage).toBe('paused');
    expect(statusLine(session.state)).toBe('Paused at step 2 of 4');
    expect(session.state.progress?.step).toBe(2);
    expect(coordinator.heartbeats.at(-1)).toMatchObject({ paused: true, progress: { stage: 'training' } });
    expect(coordinator.live).not.toBeNull();
    session.resume();
    await eventually(() => session.state.totals.rounds === 1, 'the round is delivered');
    await session.close();
  });

  it('gives its place in the queue back while paused, and asks again after', async () => {
    const bench = await makeBench();
    const { session, coordinator } = bench;
    coordinator.automatic = false;
    void session.start();
    await eventually(() => coordinator.waiting !== null, 'it asked for a place');
    session.pause();
    await eventually(() => coordinator.waiting === null, 'it left the queue');
    expect(session.state.stage).toBe('paused');
    session.resume();
    await eventually(() => coordinator.waiting !== null, 'it asked again');
    await session.close();
  });

  it('finishes the round, then stops', async () => {
    const bench = await makeBench();
    const { session, coordinator, trainer } = bench;
    trainer.holdBefore = 2;
    const running = session.start();
    await eventually(() => trainer.isHeld, 'training has begun');
    session.finishRound();
    expect(session.state.finishing).toBe(true);
    trainer.release();
    await running;
    expect(session.state.stage).toBe('stopped');
    expect(session.state.totals.rounds).toBe(1);
    expect(session.state.outcome).toBe('Stopped. 1 round helped; the model stays on this device for the next visit.');
    expect(coordinator.releases).toEqual([]);
    expect(events(bench).at(-1)).toBe('round:leave');
  });

  it('stops at once and releases the lease; starting again goes on', async () => {
    const bench = await makeBench();
    const { session, coordinator, trainer } = bench;
    trainer.holdBefore = 2;
    const running = session.start();
    await eventually(() => trainer.isHeld, 'training has begun');
    const lease = session.state.lease;
    await session.stop();
    await running;
    expect(coordinator.releases).toEqual([{ leaseId: lease?.leaseId, reason: 'stopped' }]);
    expect(session.state.stage).toBe('stopped');
    expect(session.state.lease).toBeNull();
    const beats = coordinator.heartbeats.length;
    await bench.clock.advance(60_000);
    expect(coordinator.heartbeats.length).toBe(beats);

    trainer.release();
    void session.start();
    await eventually(() => session.state.totals.rounds === 1, 'a round is delivered after all');
    await session.close();
  });

  it('closes: the lease is given back as page-closed, transport and trainer are closed', async () => {
    const bench = await makeBench();
    bench.trainer.holdBefore = 1;
    const running = bench.session.start();
    await eventually(() => bench.trainer.isHeld, 'training has begun');
    await bench.session.close();
    await running;
    expect(bench.coordinator.releases[0]?.reason).toBe('page-closed');
    expect(bench.wire.isClosed).toBe(true);
    expect(bench.trainer.closed).toBe(true);
    await expect(bench.session.prepare()).resolves.toBeUndefined();
    await expect(bench.session.start()).rejects.toMatchObject({ code: 'closed' });
  });
});
