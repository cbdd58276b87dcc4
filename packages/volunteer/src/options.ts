// What a session is made from: its ports, and what its owner chose.
import type { DataChoice, Hello, OwnLimits } from '@weft/protocol';
import type { VolunteerFiles } from './files.ts';
import type { Clock, Downloads, Identities, Storage, Trainer, Transport } from './ports.ts';

/** What to train on. Own rows (JSONL text) are used here and never sent. */
export type SessionData =
  | { readonly kind: 'task'; readonly task: string | null }
  | { readonly kind: 'own'; readonly rows: string; readonly consent: true };

export interface SessionOptions {
  readonly transport: Transport;
  readonly downloads: Downloads;
  readonly storage: Storage;
  /** Files shared with other sessions of this process, in the place of downloads and storage of its own. */
  readonly files?: VolunteerFiles;
  readonly trainer: Trainer;
  /** Opens a trainer on a fresh device after the GPU was lost or full. Without it the session ends there. */
  readonly reopenTrainer?: () => Promise<Trainer>;
  readonly identities: Identities;
  readonly clock: Clock;
  readonly client: Hello['client'];
  /** Name to show on the dashboard. */
  readonly name: string | null;
  /** null: the server's choice. */
  readonly runId: string | null;
  readonly ownLimits: OwnLimits;
  readonly data: SessionData;
  /** Whether the tab is hidden now; hidden tabs get longer leases. */
  readonly hidden?: () => boolean;
  readonly operatorToken?: string;
  /** The invite the volunteer came with; runs that want none ignore it. */
  readonly invite?: string;
  /** Numbers in [0, 1) for jitter. */
  readonly random?: () => number;
}

/** The choice as the server is told of it. */
export const choiceOf = (data: SessionData, examples: number | null): DataChoice =>
  data.kind === 'own' ? { kind: 'own', consent: true, examples: examples ?? 0 } : { kind: 'task', task: data.task };

/** What a snapshot says of the choice. `examples`: rows of an own file, once they were counted. */
export const shownData = (data: SessionData, examples: number | null) => ({
  own: data.kind === 'own',
  task: data.kind === 'task' ? data.task : null,
  examples,
});
