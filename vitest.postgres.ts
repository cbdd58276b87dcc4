// What the project `postgres` starts before its tests: one PostgreSQL for all of them, in a temporary folder. Every data
// folder gets a schema of its own in it, as in life.
import type { TestProject } from 'vitest/node';
import { startPostgres } from './apps/server/src/testing/postgres.ts';
import { findPostgres, POSTGRES_REMEDY } from './scripts/postgres.mjs';

declare module 'vitest' {
  interface ProvidedContext {
    databaseUrl: string;
    /** Folder of PostgreSQL's programs, for tests that stop and start one. */
    postgresBin: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const bin = findPostgres();
  if (!bin) throw new Error(`${POSTGRES_REMEDY}: leave the project out, or install it.`);
  const postgres = await startPostgres(bin);
  project.provide('databaseUrl', postgres.url);
  project.provide('postgresBin', bin);
  return () => postgres.remove();
}
