// `weft serve`: the server with both pages, until it is told to stop.
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createServer } from '@weft/server';
import { action, numberOption } from '../command.ts';
import { resolveModel } from '../hub/resolve.ts';
import type { Register } from '../program.ts';
import { type KeepingOptions, keepingOf, keepingOptions } from './serve-keeping.ts';
import { type EdgeOptions, edgeOptions, edgesOf } from './serve-options.ts';

interface ServeOptions extends EdgeOptions, KeepingOptions {
  readonly model: string;
  readonly tasks: string;
  readonly dataDir: string;
  readonly port: number;
  readonly host: string;
  readonly minFree: number;
  readonly keepUploads: number;
}

const root = fileURLToPath(new URL('../../../', import.meta.url));
const pagesDir = join(root, 'apps', 'web-client', 'dist');

export const registerServe: Register = (program) => {
  const command = program
    .command('serve')
    .description('Serve the volunteer page (/) and the dashboard (/admin); rounds, merging and storage included.')
    .option(
      '--model <model>',
      'base model: a folder as on Hugging Face, or hf:ORG/NAME[@REV]',
      join(root, 'assets', 'models', 'stories260K'),
    )
    .option(
      '--tasks <dir>',
      'one folder a task, each with train.jsonl and test.jsonl',
      join(root, 'assets', 'tasks', 'natural-instructions'),
    )
    .option('--data-dir <dir>', 'everything the server keeps', 'weft-data')
    .option('--port <n>', 'port; 0 takes any free one', numberOption('--port', { minimum: 0, integer: true }), 8080)
    .option('--host <address>', 'address to listen on; 0.0.0.0 for every network', '127.0.0.1')
    .option(
      '--min-free <mb>',
      'refuse uploads that would leave less than this free on the disk',
      numberOption('--min-free', { minimum: 0 }),
      256,
    )
    .option(
      '--keep-uploads <hours>',
      'keep the bytes of uploads this long after the end of their round; hashes and receipts stay for good',
      numberOption('--keep-uploads', { minimum: 0 }),
      24,
    );
  edgeOptions(keepingOptions(command)).addHelpText(
    'after',
    `\nWEFT_ADMIN_TOKEN, when set, is accepted as the admin’s token besides the one made on the first start.
\nThe log goes to stderr, a JSON document a line; WEFT_LOG_LEVEL: trace, debug, info, warn, error, fatal or silent.`,
  );
  action<ServeOptions>(command, async (options, _args, io) => {
    const { model, tasks, dataDir, port, host, minFree, keepUploads, ...rest } = options;
    const givenToken = process.env.WEFT_ADMIN_TOKEN;
    const server = await createServer({
      modelDir: (await resolveModel(model, io)).folder,
      tasksDir: tasks,
      dataDir,
      pagesDir,
      port,
      host,
      minFreeBytes: minFree * 1e6,
      uploadRetentionMs: keepUploads * 3_600_000,
      ...keepingOf(rest),
      ...(givenToken ? { adminToken: givenToken } : {}),
      ...edgesOf(rest),
    });
    const { url, adminToken } = server;
    const fingerprint = server.fingerprint();
    io.result({ url, admin: `${url}/admin`, adminToken, fingerprint, pid: process.pid }, () =>
      [
        `Volunteers: ${url}`,
        `Dashboard:  ${url}/admin`,
        adminToken
          ? `Admin token: ${adminToken}\n(shown this once; only its hash is kept)`
          : 'Admin token: as printed on the first start (lost: weft admin new-token --data-dir DIR)',
        ...(fingerprint === null ? [] : [`Certificate: SHA-256 ${fingerprint}`]),
        'Stop with Ctrl-C.',
      ].join('\n'),
    );
    const reload = () => void server.reloadCertificate();
    // Without a certificate a SIGHUP ends the process, as it does any.
    if (fingerprint !== null) process.on('SIGHUP', reload);
    if (!io.signal.aborted)
      await new Promise<void>((resolve) => io.signal.addEventListener('abort', () => resolve(), { once: true }));
    io.note('Stopping: what has begun is finished, what was acknowledged is on disk.');
    process.off('SIGHUP', reload);
    await server.close();
  });
};
