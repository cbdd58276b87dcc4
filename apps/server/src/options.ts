// What a server can be told. What is left out keeps the default named here.
import type { Logger } from 'pino';
import type { AlertOptions } from './alerts/start.ts';
import type { Limits } from './auth/limits.ts';
import type { SessionTimes } from './auth/sessions.ts';
import type { CertificateFiles } from './http/certificate.ts';

export interface ServerOptions extends AlertOptions {
  /** Everything the server keeps. Made when missing; one server at a time. */
  readonly dataDir: string;
  /** Base model, Hugging Face layout. */
  readonly modelDir: string;
  /** One folder a task. */
  readonly tasksDir: string;
  /** The built pages. */
  readonly pagesDir: string;
  /** 0 takes any free port. */
  readonly port: number;
  readonly host: string;
  /** Accepted as the admin's token besides the one the data folder keeps; with it, none is made. */
  readonly adminToken?: string;
  /** PostgreSQL that keeps the history index, `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`; else PGlite in the data folder. */
  readonly databaseUrl?: string;
  readonly logger?: Logger;
  readonly leaseMs?: number;
  readonly hiddenLeaseMs?: number;
  readonly heartbeatMs?: number;
  /** How long selection stays open for more than the goal. */
  readonly selectionGraceMs?: number;
  /** Pause between two rounds. */
  readonly restMs?: number;
  /** Child processes that merge. */
  readonly mergeWorkers?: number;
  /** Uploads are refused when they would leave less than this free on the disk; 256 MB by default. */
  readonly minFreeBytes?: number;
  /** How long the bytes of an upload are kept after its round has ended; 24 h by default. Hash and sidecar stay for good. */
  readonly uploadRetentionMs?: number;
  /** How long closing waits for work that has come in; 10 s by default. */
  readonly drainMs?: number;
  /** What one address, one client and all together may ask; what is left out keeps its default. */
  readonly limits?: Partial<Limits>;
  /** When sessions of the dashboard end. */
  readonly sessionTimes?: Partial<SessionTimes>;
  /** As browsers reach the server through a proxy, such as https://weft.example.org. */
  readonly publicUrl?: string;
  /** Origins besides the server's own whose pages may send requests. */
  readonly allowOrigins?: readonly string[];
  /** Proxies whose X-Forwarded-For is believed: addresses, networks, `loopback`, `linklocal`, `uniquelocal`. */
  readonly trustProxy?: readonly string[];
  /** Serve HTTPS: with the operator's own files, or `true` for a self-signed certificate kept in the data folder. */
  readonly https?: true | CertificateFiles;
}
