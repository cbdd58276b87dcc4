// One volunteer's session as a state machine, and the parts that a tab and a terminal share. Knows no socket, disk or GPU.
export { systemClock } from './clock.ts';
export * from './errors.ts';
export * from './evaluator.ts';
export { RunFiles, type VolunteerFiles } from './files.ts';
export * from './http-downloads.ts';
export * from './identity.ts';
export type { LineOptions } from './line.ts';
export type { SessionData, SessionOptions } from './options.ts';
export * from './ports.ts';
export * from './rights.ts';
export * from './session.ts';
export * from './socket-transport.ts';
export type { LossPoint, SessionFault, SessionState, Stage, StateListener, Transfer } from './state.ts';
export { statusLine, totalsLine } from './state.ts';
export { formatBytes, formatMs } from './words.ts';
