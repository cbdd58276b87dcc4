// The round machine alone: for trials that shuffle its events, and for whoever replays them.
export { countLeases, minimumOfUploads, selectionLimit, versionsInUse } from './derive.ts';
export { initialState, step } from './machine.ts';
export { machineStateSchema, parseMachineEvent } from './schema.ts';
export type * from './types.ts';
