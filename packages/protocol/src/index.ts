// What crosses the wire between volunteers, admins and the server: schemas, types, errors, paths. Knows no transport.
export * from './access.ts';
export * from './admin-messages.ts';
export * from './device.ts';
export * from './errors.ts';
export * from './hash-tree.ts';
export * from './http.ts';
export * from './kept-receipts.ts';
export * from './keys.ts';
export * from './leaving.ts';
export * from './primitives.ts';
export * from './receipts.ts';
export * from './run.ts';
export * from './version.ts';
export * from './volunteer-messages.ts';
