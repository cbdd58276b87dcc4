// `weft backup` and `weft restore`: a server's data folder copied with its hashes, and made again from such a copy.
import { resolve } from 'node:path';
import { backup, type Copied, restore } from '@weft/server';
import { action, formatBytes } from '../command.ts';
import { isDiskFull, writeFailure } from '../disk.ts';
import type { Register } from '../program.ts';

interface BackupOptions {
  readonly dataDir: string;
}

const BACKUP_HELP = `
The server may run meanwhile. The copy holds runs, receipts, uploads, committed states and credentials; not the
model, the tasks, uploads on their way, or the index, which is made again. Whoever can read it can read all of it.

Examples:
  weft backup backups/monday --data-dir weft-data
  weft restore backups/monday --data-dir weft-data`;

const RESTORE_HELP = `
Then start the server with the --model and --tasks it had before: weft serve --data-dir DIR …`;

const describe = ({ files, bytes, runs }: Copied): string =>
  `${files} files, ${formatBytes(bytes)}, ${runs.length} ${runs.length === 1 ? 'run' : 'runs'}`;

/** Work on the disk, whose fullness is told as every command tells it. */
function onDisk<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw isDiskFull(error) ? writeFailure(path, error) : error;
  }
}

export const registerBackup: Register = (program) => {
  const command = program
    .command('backup <dir>')
    .description('Copy a server’s data folder, running or not, with the hash of every file.')
    .option('--data-dir <dir>', 'the server’s data folder', 'weft-data')
    .addHelpText('after', BACKUP_HELP);
  action<BackupOptions>(command, async ({ dataDir }, [dir = ''], io) => {
    io.note(`Copying ${dataDir} …`);
    const copied = onDisk(dir, () => backup(resolve(dataDir), resolve(dir), new Date()));
    for (const path of copied.damaged) io.note(`Left out, being damaged: ${path}`);
    io.result({ ...copied, folder: resolve(dir) }, () => `Backup in ${dir}: ${describe(copied)}.`);
  });
};

export const registerRestore: Register = (program) => {
  const command = program
    .command('restore <dir>')
    .description('Make a data folder from a backup; every file is checked against its hash.')
    .option('--data-dir <dir>', 'the new data folder; must be empty or missing', 'weft-data')
    .addHelpText('after', RESTORE_HELP);
  action<BackupOptions>(command, async ({ dataDir }, [dir = ''], io) => {
    io.note(`Copying and checking ${dir} …`);
    const copied = onDisk(dataDir, () => restore(resolve(dir), resolve(dataDir)));
    io.result(
      { ...copied, folder: resolve(dataDir) },
      () =>
        `Restored into ${dataDir} as of ${copied.madeAt}: ${describe(copied)}.\nStart it: weft serve --data-dir ${dataDir}`,
    );
  });
};
