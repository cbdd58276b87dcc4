// In every test file of the project `postgres`: the servers it starts, in its process or as others, keep their index there.
import { inject } from 'vitest';
import './vitest.postgres.ts';

process.env.WEFT_TEST_DATABASE_URL = inject('databaseUrl');
process.env.DATABASE_URL = inject('databaseUrl');
