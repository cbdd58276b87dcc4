// Where this machine keeps PostgreSQL's programs. Looks only: the tests run on PostgreSQL where there is one, and say so
// where there is none. Nothing here is needed to run Weft.
import { existsSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';

export const POSTGRES_REMEDY = 'PostgreSQL is not installed (apt-get install postgresql)';

/** Folder with initdb and postgres: WEFT_POSTGRES_BIN, else Debian's newest, else one on PATH; null where there is none. */
export function findPostgres() {
  const debian = '/usr/lib/postgresql';
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : [];
  const folders = [
    process.env.WEFT_POSTGRES_BIN,
    ...versions.map((version) => join(debian, version, 'bin')),
    ...(process.env.PATH ?? '').split(delimiter),
  ];
  return (
    folders.find((folder) => folder && ['initdb', 'postgres'].every((name) => existsSync(join(folder, name)))) ?? null
  );
}
