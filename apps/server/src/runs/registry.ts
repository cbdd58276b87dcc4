// All runs of a server: loaded from disk, created by the operator, found by volunteers.
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { loraTargets, PROJECTIONS } from '@weft/formats';
import {
  type Alert,
  type Manifest,
  type Overview,
  PIECE_BYTES,
  ProtocolError,
  type RunIdentity,
  type RunSettings,
  type RunView,
} from '@weft/protocol';
import type { Logger } from 'pino';
import type { Bans } from '../auth/bans.ts';
import { initialState } from '../coordinator/machine.ts';
import { ServerError } from '../errors.ts';
import { DEFAULT_UPLOAD_LIMITS, PartialUploads, type UploadLimits } from '../ingest/partial.ts';
import type { Merger } from '../merge/merger.ts';
import type { Signer } from '../receipts/signer.ts';
import { BlobFolder } from '../store/blobs.ts';
import type { CheckReport } from '../store/check-report.ts';
import type { DiskSpace } from '../store/disk-space.ts';
import type { HistoryIndex } from '../store/history.ts';
import { hashIdentity, hashManifest, type ServedFile } from '../store/manifest.ts';
import type { ModelFolder } from '../store/model-folder.ts';
import { sweepUploads } from '../store/retention.ts';
import { type RunDefinition, RunStore } from '../store/run-store.ts';
import type { Task } from '../store/task-folder.ts';
import type { Gate } from './gate.ts';
import { LiveRun } from './live-run.ts';
import type { RunObserver } from './observer.ts';
import { checkSettings, policyOf } from './policy.ts';
import type { Timing } from './run-context.ts';

export interface RegistryOptions {
  readonly dataDir: string;
  readonly model: ModelFolder;
  readonly tasks: ReadonlyMap<string, Task>;
  readonly merger: Merger;
  readonly index: HistoryIndex;
  readonly disk: DiskSpace;
  readonly report: CheckReport;
  readonly gate: Gate;
  readonly uploadLimits: Partial<UploadLimits>;
  readonly observer: RunObserver;
  /** What is wrong now. */
  readonly alerts: () => readonly Alert[];
  readonly timing: Timing;
  readonly logger: Logger;
  readonly now: () => Date;
  readonly monotonic: () => number;
  readonly signer: Signer;
  readonly bans: Bans;
}

export class Registry {
  readonly #options: RegistryOptions;
  readonly #folder: string;
  readonly #runs = new Map<string, LiveRun>();
  readonly #listeners = new Set<() => void>();
  readonly blobs: BlobFolder;
  readonly #uploads: BlobFolder;
  readonly globals: BlobFolder;
  readonly #partials: PartialUploads;
  /** Model and task files by their hash. */
  readonly files: ReadonlyMap<string, ServedFile>;

  constructor(options: RegistryOptions) {
    const { dataDir, model, tasks, uploadLimits } = options;
    this.#options = options;
    this.#folder = join(dataDir, 'runs');
    this.blobs = new BlobFolder(join(dataDir, 'blobs'));
    this.#uploads = new BlobFolder(join(dataDir, 'uploads'));
    this.globals = new BlobFolder(join(dataDir, 'globals'));
    this.#partials = new PartialUploads(join(dataDir, 'partial'), { ...DEFAULT_UPLOAD_LIMITS, ...uploadLimits });
    const files = [...model.files, ...[...tasks.values()].flatMap((task) => task.files)];
    this.files = new Map(files.map((file) => [file.entry.sha256, file]));
  }

  /** Loads every run of the data folder and takes it up again. */
  load(): void {
    mkdirSync(this.#folder, { recursive: true });
    for (const runId of readdirSync(this.#folder).sort()) {
      const store = new RunStore(join(this.#folder, runId));
      const definition = store.readDefinition();
      if (!definition) continue;
      const manifest = this.#manifestOf(definition.settings.tasks);
      if (!manifest || hashManifest(manifest) !== definition.manifestHash) {
        const initial = () => initialState(policyOf(definition.settings, this.#options.timing));
        const state = store.machineJournal(this.#options.logger, null).load(initial).run;
        const what = `Run "${definition.settings.name}" (${runId}) was made with another model or other tasks`;
        if (state !== 'completed' && state !== 'stopped') {
          throw new ServerError(
            'data-dir-corrupt',
            `${what}. Start with its --model and --tasks again, or with another --data-dir.`,
          );
        }
        this.#options.logger.warn({ run: runId }, `${what}; it has ended and is left out.`);
        continue;
      }
      this.#adopt(definition, store, manifest).resume();
    }
    this.#sweepPartials();
    const { report, logger } = this.#options;
    Promise.all(this.all().map((run) => run.checked)).then(
      () => report.write(),
      (error: unknown) => logger.error({ err: error }, 'the data folder could not be checked'),
    );
  }

  /** Uploads on their way whose lease ended with the last server, or whose announcement never got there. */
  #sweepPartials(): void {
    const isAwaited = (leaseId: string) => this.all().some((run) => run.mayDeliver(leaseId));
    for (const { name, bytes } of this.#partials.sweep(isAwaited)) {
      const path = join('partial', name);
      const text = `${path} belongs to no lease that could still deliver, and was removed.`;
      this.#options.report.add({ kind: 'partial-without-lease', path, bytes, text });
    }
  }

  #manifestOf(tasks: readonly string[]): Manifest | null {
    const chosen = tasks.map((name) => this.#options.tasks.get(name));
    if (chosen.includes(undefined)) return null;
    const known = chosen.filter((task) => task !== undefined);
    const { model } = this.#options;
    return {
      pieceBytes: PIECE_BYTES,
      model: model.model,
      tasks: known.map((task) => task.info),
      files: [...model.files, ...known.flatMap((task) => task.files)].map((file) => file.entry),
    };
  }

  #adopt(definition: RunDefinition, store: RunStore, manifest: Manifest): LiveRun {
    const { model, merger, index, observer, disk, report, gate, timing, logger, now, monotonic, signer, bans } =
      this.#options;
    const run = new LiveRun({
      definition,
      manifest,
      matrices: loraTargets(model.config, definition.settings.targets).map(({ module, out, in: columns }) => ({
        module,
        out,
        in: columns,
      })),
      store,
      blobs: this.blobs,
      uploads: this.#uploads,
      globals: this.globals,
      partials: this.#partials,
      merger,
      index,
      disk,
      report,
      gate,
      observer,
      timing,
      logger,
      now,
      monotonic,
      isAwaitedAnywhere: (leaseId) => this.all().some((other) => other.mayDeliver(leaseId)),
      isNeededAnywhere: (sha256, leaseId) => this.all().some((other) => other.volunteers.holdsUpload(sha256, leaseId)),
      signer,
      bans,
    });
    this.#runs.set(definition.runId, run);
    index.catchUp({ definition, store, records: () => run.records() });
    return run;
  }

  /** Throws ProtocolError 'bad-settings'. */
  create(settings: RunSettings): RunView {
    const { model, tasks, now } = this.#options;
    const sizes = loraTargets(model.config, settings.targets).map((target) => Math.min(target.in, target.out));
    checkSettings(settings, {
      tasks: [...tasks.keys()],
      contextLength: model.config.maxPositions,
      largestRank: Math.max(...sizes),
    });
    const manifest = this.#manifestOf(settings.tasks);
    if (!manifest) throw new ProtocolError('bad-settings', 'tasks: the server has not all of them.');
    const manifestHash = hashManifest(manifest);
    const identity: RunIdentity = {
      manifestHash,
      baseDtype: settings.baseDtype,
      sequenceLength: settings.sequenceLength,
      promptTemplate: '{prompt}',
      targets: PROJECTIONS.filter((projection) => settings.targets.includes(projection)),
    };
    const runId = `${slug(settings.name)}-${randomBytes(4).toString('hex')}`;
    const definition: RunDefinition = {
      runId,
      createdAt: now().toISOString(),
      settings,
      manifestHash,
      identity,
      runHash: hashIdentity(identity),
    };
    const store = new RunStore(join(this.#folder, runId));
    store.writeDefinition(definition);
    const run = this.#adopt(definition, store, manifest);
    run.log('info', `Run "${settings.name}" was created.`);
    for (const listener of this.#listeners) listener();
    return run.view();
  }

  /** Calls `listener` after every creation. Returns a function that stops it. */
  onCreated(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  all(): LiveRun[] {
    return [...this.#runs.values()].sort((a, b) =>
      a.createdAt < b.createdAt ? -1 : a.createdAt > b.createdAt ? 1 : 0,
    );
  }

  /** Throws ProtocolError 'unknown-run'. */
  get(runId: string): LiveRun {
    const run = this.#runs.get(runId);
    if (!run)
      throw new ProtocolError('unknown-run', `The server has no run ${runId}. Reload the page to see its runs.`);
    return run;
  }

  /** The run a volunteer means by naming none: the newest that runs, else the newest that may, else the newest. */
  newest(): LiveRun {
    const newestFirst = this.all().reverse();
    const run =
      newestFirst.find((candidate) => candidate.state.run === 'running') ??
      newestFirst.find((candidate) => candidate.state.run === 'created' || candidate.state.run === 'paused') ??
      newestFirst[0];
    if (!run) {
      throw new ProtocolError(
        'unknown-run',
        'The server has no run yet. Come back when its operator has created one.',
        {
          retryAfterMs: 10_000,
        },
      );
    }
    return run;
  }

  overview(): Overview {
    const { model, tasks } = this.#options;
    return {
      model: model.model,
      tasks: [...tasks.values()].map((task) => task.info),
      runs: this.all().map((run) => run.view()),
      alerts: [...this.#options.alerts()],
    };
  }

  get bans(): Bans {
    return this.#options.bans;
  }

  get signer(): Signer {
    return this.#options.signer;
  }

  /** Bans a client from every run, and ends what it does now. Throws 'unknown-client' where its address is not known. */
  ban(wish: { clientId: string; reason: string; address: boolean }): void {
    const name = this.all().reduce<string | null>((found, run) => found ?? run.volunteers.nameOf(wish.clientId), null);
    this.bans.add({ ...wish, name });
    for (const run of this.all()) run.volunteers.ban(wish.clientId, wish.reason);
  }

  /** Throws 'unknown-client' where there is no such ban. */
  unban(clientId: string): void {
    this.bans.remove(clientId);
    for (const run of this.all()) run.volunteers.unban(clientId);
  }

  /** How the data folder does. */
  storage(): { freeBytes: number | null; low: boolean; findings: Record<string, number> } {
    const { disk, report } = this.#options;
    return { freeBytes: disk.free, low: disk.low, findings: report.counts() };
  }

  tick(ms: number): void {
    for (const run of this.#runs.values()) {
      try {
        run.tick(ms);
      } catch (error) {
        // A full disk, most likely. Time goes on; the next tick tries again.
        this.#options.logger.error({ err: error, run: run.runId }, 'a run could not go on');
      }
    }
  }

  /** Removes the bytes of uploads whose time is over. */
  async sweepUploads(retentionMs: number): Promise<void> {
    const runs = this.all().map((run) => run.sweptRun());
    const swept = await sweepUploads(runs, this.#uploads, { retentionMs, now: this.#options.now().getTime() });
    if (swept.rounds > 0) this.#options.logger.info(swept, 'the bytes of old uploads were removed');
  }

  async close(): Promise<void> {
    await Promise.all(this.all().map((run) => run.close()));
    await this.#partials.close();
  }
}

/** Letters and digits of a name, for people who read paths. */
function slug(name: string): string {
  const plain = name
    .normalize('NFKD')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '');
  return plain.slice(0, 32).replace(/-+$/, '') || 'run';
}
