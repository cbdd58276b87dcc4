// The numbers both ends must agree on. `PROTOCOL_VERSION` is checked before anything else is read.

/** Raised by one whenever a message changes in a way an older peer would misread. */
export const PROTOCOL_VERSION = 3;

/** Files of the manifest are hashed, and may be fetched, in pieces of this many bytes. */
export const PIECE_BYTES = 4 * 1024 * 1024;

/** Size of an upload chunk in bytes: small enough that heartbeats pass between two of them. */
export const CHUNK_BYTES = 128 * 1024;

/** Chunks a client may have unacknowledged. */
export const MAX_CHUNKS_IN_FLIGHT = 2;

/** Largest message a socket accepts, in bytes: one chunk of the largest allowed size and its envelope. */
export const MAX_MESSAGE_BYTES = 512 * 1024;

/** How often a leased client reports, in milliseconds. Any other frame renews the lease as well. */
export const HEARTBEAT_MS = 10_000;

/** How long a lease lives without a sign of life, in milliseconds. */
export const LEASE_MS = 30_000;

/** The same for a tab that says it is hidden, whose timers the browser slows to one a minute. */
export const HIDDEN_LEASE_MS = 120_000;

/** Socket.IO namespaces. */
export const NAMESPACES = { volunteer: '/volunteer', admin: '/admin' } as const;
