// Types of postgres.mjs, for vitest.postgres.ts.
export declare const POSTGRES_REMEDY: string;
export declare function findPostgres(): string | null;
