// `weft prune`: frees what no run of a stopped server needs any more.
import { resolve } from 'node:path';
import { type Freed, prune } from '@weft/server';
import { action, formatBytes, numberOption, table } from '../command.ts';
import type { Register } from '../program.ts';

interface PruneOptions {
  readonly dataDir: string;
  readonly keepUploads: number;
  readonly dryRun?: boolean;
}

const HOUR_MS = 3_600_000;

const HELP = `
Receipts, rounds and committed states stay; start weights are made again when somebody asks for an old version.
A running server removes old uploads by itself (weft serve --keep-uploads HOURS); stop it to prune the rest.

Examples:
  weft prune --data-dir weft-data --dry-run
  weft prune --data-dir weft-data --keep-uploads 0`;

export const registerPrune: Register = (program) => {
  const command = program
    .command('prune')
    .description('Free what no run needs any more: old uploads, old start weights, blobs that nothing names.')
    .option('--data-dir <dir>', 'the data folder of a stopped server', 'weft-data')
    .option(
      '--keep-uploads <hours>',
      'keep the bytes of uploads this long after the end of their round',
      numberOption('--keep-uploads', { minimum: 0 }),
      24,
    )
    .option('--dry-run', 'only show what it would free')
    .addHelpText('after', HELP);
  action<PruneOptions>(command, async ({ dataDir, keepUploads, dryRun = false }, _args, io) => {
    const pruned = await prune(resolve(dataDir), { retentionMs: keepUploads * HOUR_MS, now: new Date(), dryRun });
    const parts = Object.values(pruned);
    const total: Freed = {
      files: parts.reduce((sum, { files }) => sum + files, 0),
      bytes: parts.reduce((sum, { bytes }) => sum + bytes, 0),
    };
    const row = (what: string, { files, bytes }: Freed) => [what, files, formatBytes(bytes)];
    io.result({ dryRun, ...pruned, total }, () =>
      [
        table([
          [dryRun ? 'would free' : 'freed', 'files', 'bytes'],
          row('uploads whose time is over', pruned.uploads),
          row('start weights of past versions', pruned.starts),
          row('blobs that nothing names', pruned.orphans),
          row('half-written files', pruned.temporary),
          row('together', total),
        ]),
        ...(dryRun ? ['Nothing was removed; leave out --dry-run to do it.'] : []),
      ].join('\n'),
    );
  });
};
