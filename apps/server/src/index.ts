// The server: rounds, storage, merging, HTTP and Socket.IO behind one function.

export { Access } from './auth/access.ts';
export { LIMITS, type Limits } from './auth/limits.ts';
export { ServerError, type ServerErrorCode } from './errors.ts';
export { createLogger } from './log.ts';
export type { ServerOptions } from './options.ts';
export { createServer, type RunningServer } from './server.ts';
export { backup, type Copied, restore } from './store/backup.ts';
export { lockFolder } from './store/lock.ts';
export { type Freed, type Pruned, prune } from './store/prune.ts';
