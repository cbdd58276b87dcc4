// What tests of the trainer and of the command line share: models of every family, adapters and rows for them, and the
// float64 reference they are held to. Exported as `@weft/trainer/testing`.
export * from '../reference/index.ts';
export * from './adapters.ts';
export * from './checkpoint.ts';
export * from './compare.ts';
export * from './families.ts';
