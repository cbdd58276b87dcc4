// What a live run is given: its definition, its places on disk, the merger, the clock. And whom it tells.
import type { Lease, Manifest } from '@weft/protocol';
import type { Logger } from 'pino';
import type { Bans } from '../auth/bans.ts';
import type { PartialUploads } from '../ingest/partial.ts';
import type { Merger } from '../merge/merger.ts';
import type { Signer } from '../receipts/signer.ts';
import type { BlobFolder } from '../store/blobs.ts';
import type { CheckReport } from '../store/check-report.ts';
import type { DiskSpace } from '../store/disk-space.ts';
import type { HistoryIndex } from '../store/history.ts';
import type { RunDefinition, RunStore } from '../store/run-store.ts';
import type { Gate } from './gate.ts';
import type { Matrix } from './grants.ts';
import type { RunObserver } from './observer.ts';
import type { RoundTiming } from './policy.ts';

export interface Timing extends RoundTiming {
  readonly leaseMs: number;
  readonly hiddenLeaseMs: number;
  readonly heartbeatMs: number;
}

export interface RunContext {
  readonly definition: RunDefinition;
  readonly manifest: Manifest;
  /** Matrices the run adapts, in the checkpoint's order. */
  readonly matrices: readonly Matrix[];
  readonly store: RunStore;
  /** Start weights, handed out to anybody who knows their hash. */
  readonly blobs: BlobFolder;
  /** Uploads; never handed out. */
  readonly uploads: BlobFolder;
  /** Committed global states. */
  readonly globals: BlobFolder;
  readonly partials: PartialUploads;
  readonly merger: Merger;
  readonly index: HistoryIndex;
  readonly disk: DiskSpace;
  /** What this start has found in the data folder. */
  readonly report: CheckReport;
  /** Lets clients' work in until the server is to stop. */
  readonly gate: Gate;
  readonly observer: RunObserver;
  readonly timing: Timing;
  readonly logger: Logger;
  readonly now: () => Date;
  /** Milliseconds that never jump. */
  readonly monotonic: () => number;
  /** Whether any run still takes an upload of this lease. */
  readonly isAwaitedAnywhere: (leaseId: string) => boolean;
  /** Whether the upload of another lease, in any run, is of these very bytes. */
  readonly isNeededAnywhere: (sha256: string, leaseId: string) => boolean;
  readonly signer: Signer;
  readonly bans: Bans;
}

/** Those who pass a run's news on. Calls must not throw. */
export interface RunListener {
  /** A lease for somebody who has waited. */
  granted(clientId: string, lease: Lease): void;
  /** Nothing more of this client is taken on the sockets it has open. */
  banned(clientId: string): void;
  /** `lateMs`: how long its upload is still taken; 0: not any more. */
  revoked(clientId: string, leaseId: string, reason: string, lateMs: number): void;
  /** Something the dashboard draws has changed. Often. */
  changed(): void;
  /** State, version or outcome of the run have changed. */
  runChanged(): void;
  /** A version waits for an evaluator. */
  evaluationAvailable(version: number): void;
}
