// The server: rounds, storage, merging, HTTP and Socket.IO behind one function.
export { ServerError, type ServerErrorCode } from './errors.ts';
export { createServer, type RunningServer, type ServerOptions } from './server.ts';
export { backup, type Copied, restore } from './store/backup.ts';
export { type Freed, type Pruned, prune } from './store/prune.ts';
