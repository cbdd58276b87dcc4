// A session on the in-memory coordinator, with a trainer whose steps the test lets happen.
import { readSafetensors, toFloat32, writeSafetensors } from '@weft/formats';
import type { EvaluationResult, OwnLimits, RankProposal, RunView } from '@weft/protocol';
import { StorageError } from '../errors.ts';
import { generateKeys, identityOf, sameIdentity } from '../identity.ts';
import type { SessionData, SessionOptions } from '../options.ts';
import type { Storage, Trainer, TrainingControl, TrainingJob, TrainingResult } from '../ports.ts';
import { VolunteerSession } from '../session.ts';
import { Coordinator, type CoordinatorOptions } from './coordinator.ts';
import { FakeClock, settle } from './fake-clock.ts';
import type { Wire } from './wire.ts';

export class MemoryStorage implements Storage {
  readonly files = new Map<string, Uint8Array>();
  fullAt: number | null = null;

  async read(key: string): Promise<Uint8Array | null> {
    return this.files.get(key)?.slice() ?? null;
  }

  async size(key: string): Promise<number> {
    return this.files.get(key)?.length ?? 0;
  }

  async writeAt(key: string, offset: number, bytes: Uint8Array): Promise<void> {
    const before = this.files.get(key) ?? new Uint8Array(0);
    const after = new Uint8Array(Math.max(before.length, offset + bytes.length));
    if (this.fullAt !== null && after.length > this.fullAt) throw new StorageError('storage-full', 'The disk is full.');
    after.set(before);
    after.set(bytes, offset);
    this.files.set(key, after);
  }

  async remove(key: string): Promise<void> {
    this.files.delete(key);
  }
}

class TestGpuError extends Error {
  readonly code: string;
  constructor(code: string) {
    super(`Test: ${code}.`);
    this.code = code;
  }
}

/** Adds one to every factor a step. `gate` holds it before a step until the test lets it go. */
export class TestTrainer implements Trainer {
  readonly jobs: TrainingJob[] = [];
  readonly limits: OwnLimits[] = [];
  closed = false;
  /** Step (1 for the first) before which it waits for {@link release}; null: never. */
  holdBefore: number | null = null;
  /** Error code to fail with at the first step, or null. */
  failWith: string | null = null;
  lossOf: (step: number) => number = (step) => 5 - step * 0.1;
  /** Changes the factors it hands back. */
  spoil: (update: Uint8Array) => Uint8Array = (update) => update;
  #letGo: (() => void) | null = null;

  device() {
    return {
      adapter: { vendor: 'test', architecture: 'test', device: 'test', description: 'Test GPU', software: true },
      limits: { maxBufferSize: 1 << 28, maxStorageBufferBindingSize: 1 << 27 },
      features: [],
      deviceMemoryGiB: null,
    };
  }

  async proposeRank(run: RunView, _model: unknown, ownLimits: OwnLimits): Promise<RankProposal> {
    this.limits.push(ownLimits);
    const memory = (rank: number) => rank * 1_000_000;
    const verdicts = run.settings.ranks.map((rank) => {
      const fits =
        memory(rank) <= (ownLimits.maxMemoryBytes ?? Number.POSITIVE_INFINITY) && rank <= (ownLimits.maxRank ?? rank);
      return {
        rank,
        fits,
        memoryBytes: memory(rank),
        uploadBytes: rank * 40,
        reason: fits ? 'It fits.' : 'Your limit.',
      };
    });
    const best = verdicts.findLast((verdict) => verdict.fits);
    if (!best) throw new TestGpuError('no-rank-fits');
    return { rank: best.rank, verdicts, ownLimits, stepSeconds: null };
  }

  async train(_model: unknown, job: TrainingJob, control: TrainingControl): Promise<TrainingResult> {
    this.jobs.push(job);
    const { steps } = job.training;
    let done = 0;
    for (const compiled of [1, 2]) control.onCompile?.(compiled, 2);
    while (done < steps) {
      if (done > 0 && control.finishEarly()) break;
      await control.whenRunning();
      if (this.holdBefore === done + 1) await this.#hold(control.signal);
      control.signal.throwIfAborted();
      if (this.failWith !== null) throw new TestGpuError(this.failWith);
      done += 1;
      control.onStep({ step: done, steps, loss: this.lossOf(done), targetTokens: done * 10, tokensPerSecond: 100 });
      await Promise.resolve();
    }
    const { tensors } = readSafetensors(job.start);
    const update = writeSafetensors(
      [...tensors].map(([name, tensor]) => ({
        name,
        dtype: 'F32' as const,
        shape: tensor.shape,
        data: toFloat32(tensor).map((value) => value + done),
      })),
    );
    const counts = { steps: done, targetTokens: done * 10, examples: done * 8, truncatedRows: 0 };
    return {
      update: this.spoil(update),
      rank: job.grant.rank,
      ...counts,
      firstLoss: this.lossOf(1),
      lastLoss: this.lossOf(done),
      tokensPerSecond: 100,
    };
  }

  #hold(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      this.#letGo = resolve;
    });
  }

  get isHeld(): boolean {
    return this.#letGo !== null;
  }

  release(): void {
    this.holdBefore = null;
    this.#letGo?.();
    this.#letGo = null;
  }

  async evaluate(
    _model: unknown,
    job: { tasks: readonly string[] },
    adapter: Uint8Array | null,
    rows: ReadonlyMap<string, string>,
  ): Promise<EvaluationResult[]> {
    return job.tasks.map((task) => ({
      task,
      loss: adapter ? 2 : 3,
      targetTokens: rows.get(task)?.length ?? 0,
      rows: (rows.get(task) ?? '').trim().split('\n').length,
    }));
  }

  close(): void {
    this.closed = true;
  }
}

export const NO_LIMITS: OwnLimits = { maxMemoryBytes: null, maxRank: null, maxUploadBytes: null };

export interface Bench {
  readonly coordinator: Coordinator;
  readonly wire: Wire;
  readonly clock: FakeClock;
  readonly storage: MemoryStorage;
  readonly trainer: TestTrainer;
  /** Trainers opened on fresh devices. */
  readonly reopened: TestTrainer[];
  readonly session: VolunteerSession;
}

export interface BenchOptions extends CoordinatorOptions {
  readonly data?: SessionData;
  readonly ownLimits?: OwnLimits;
  readonly storage?: MemoryStorage;
  readonly hidden?: () => boolean;
  readonly canReopen?: boolean;
}

export async function makeBench(options: BenchOptions = {}): Promise<Bench> {
  const coordinator = await Coordinator.create(options);
  const wire = coordinator.connect();
  const clock = new FakeClock();
  const storage = options.storage ?? new MemoryStorage();
  const trainer = new TestTrainer();
  const reopened: TestTrainer[] = [];
  const sessionOptions: SessionOptions = {
    transport: wire,
    downloads: coordinator.downloads,
    storage,
    trainer,
    identities: sameIdentity(await identityOf(await generateKeys(false))),
    clock,
    client: { kind: 'load', version: 'test' },
    name: 'tester',
    runId: null,
    ownLimits: options.ownLimits ?? NO_LIMITS,
    data: options.data ?? { kind: 'task', task: null },
    random: () => 0.5,
    ...(options.hidden ? { hidden: options.hidden } : {}),
    ...(options.canReopen === false
      ? {}
      : {
          reopenTrainer: async () => {
            const fresh = new TestTrainer();
            reopened.push(fresh);
            return fresh;
          },
        }),
  };
  const session = new VolunteerSession(sessionOptions);
  await settle();
  return { coordinator, wire, clock, storage, trainer, reopened, session };
}
