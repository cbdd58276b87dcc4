// What `weft merge` shares with the server: files read tensor by tensor, factors read when they are taken, and processes that
// merge. An entry of its own, so that a merge process does not load a server.
export { lazyFactors } from './lazy-factors.ts';
export { defaultProcesses, processPool } from './processes.ts';
export { type FileVersion, readTensor, TensorFile } from './tensor-file.ts';
