// One experiment from start to end on this machine: a server, an evaluator, a headless browser whose tabs train, and a
// folder that holds everything afterwards.
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { cp, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chooseAdapter, type Experiment, launchBrowser, probeAdapter, VolunteerTab } from '@weft/e2e/fleet';
import { ROUTES } from '@weft/protocol';
import { createServer } from '@weft/server';
import { pino } from 'pino';
import { AdminClient } from '../admin-client.ts';
import { CommandError, type Io } from '../command.ts';
import { readModelFolder } from '../folders.ts';
import { type ExperimentReport, reportRounds, unigramLosses } from './report.ts';
import { watchUntilOver } from './watch.ts';

/** Where `vite build` puts the pages. */
const pagesDir = fileURLToPath(new URL('../../web-client/dist', import.meta.url));
const ADAPTER_FILES = ['adapter_config.json', 'adapter_model.safetensors', 'README.md'] as const;

/** Ends what was started, last first, whatever happens; failures to end are reported, not thrown over the real one. */
class Cleanup {
  readonly #tasks: { what: string; end: () => Promise<unknown> }[] = [];

  add(what: string, end: () => Promise<unknown>): void {
    this.#tasks.push({ what, end });
  }

  async run(io: Io): Promise<void> {
    for (const { what, end } of this.#tasks.splice(0).reverse()) {
      try {
        await end();
      } catch (error) {
        io.note(`Could not end ${what}: ${error instanceof Error ? error.message : error}`);
      }
    }
  }
}

function endChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    const kill = setTimeout(() => child.kill('SIGKILL'), 10_000);
    child.once('exit', () => {
      clearTimeout(kill);
      resolve();
    });
    child.kill('SIGTERM');
  });
}

/** The operator's evaluator in a process of its own, so that measuring and serving do not wait for each other. */
function startEvaluator(url: string, token: string, folder: string, onDeath: (message: string) => void): ChildProcess {
  const weft = fileURLToPath(new URL('weft.js', import.meta.url));
  const args = [
    weft,
    'join',
    url,
    '--evaluate',
    '--operator-token',
    token,
    '--name',
    'evaluator',
    '--state-dir',
    join(folder, 'evaluator'),
  ];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let tail = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    tail = (tail + chunk.toString()).slice(-2000);
  });
  child.once('exit', (code) => {
    if (code !== 0 && code !== null) onDeath(`The evaluator ended with code ${code}:\n${tail}`);
  });
  return child;
}

async function download(url: string, path: string, token: string): Promise<Uint8Array> {
  const response = await fetch(`${url}${path}`, { headers: { authorization: `Bearer ${token}` } });
  if (!response.ok)
    throw new CommandError(
      'download',
      `GET ${path} answered ${response.status}: ${(await response.text()).slice(0, 300)}`,
    );
  return new Uint8Array(await response.arrayBuffer());
}

/**
 * Runs an experiment whose paths are absolute and leaves model, data, adapter and metrics in `folder`. Rejects with what
 * went wrong after ending everything it started.
 */
export async function runExperiment(experiment: Experiment, folder: string, io: Io): Promise<ExperimentReport> {
  const cleanup = new Cleanup();
  const failed = new AbortController();
  const watching: Io = { ...io, signal: AbortSignal.any([io.signal, failed.signal]) };
  const fail = (message: string) => failed.abort(new CommandError('fleet', message));
  try {
    const { run: settings, tabs } = experiment;
    const [model, tasks] = [join(folder, 'model'), join(folder, 'tasks')];
    await mkdir(folder, { recursive: true });
    await cp(experiment.model, model, { recursive: true });
    for (const task of settings.tasks) await cp(join(experiment.tasks, task), join(tasks, task), { recursive: true });

    const token = randomBytes(24).toString('base64url');
    const logger = pino({ level: 'info' }, pino.destination({ dest: join(folder, 'server.log'), sync: true }));
    const server = await createServer({
      dataDir: join(folder, 'server'),
      modelDir: model,
      tasksDir: tasks,
      pagesDir,
      port: 0,
      host: '127.0.0.1',
      adminToken: token,
      logger,
      // Nobody but these tabs can come: once all are here, there is nothing left to wait for.
      ...(tabs.length <= settings.goal ? { selectionGraceMs: 0 } : {}),
    });
    cleanup.add('the server', () => server.close());
    const url = server.url.replace('127.0.0.1', 'localhost');
    io.note(`server: ${url} (dashboard: ${url}/admin, token: ${token})`);

    const admin = await AdminClient.connect(url, token);
    cleanup.add('the admin connection', async () => admin.close());
    const { runId } = await admin.request('admin:create', settings);

    const browser = await launchBrowser(chooseAdapter());
    cleanup.add('the browser', () => browser.close());
    const gpu = await probeAdapter(browser, url);
    io.note(`browser: ${browser.version()}, ${gpu.name}${gpu.software ? ' (software adapter)' : ''}`);

    await admin.request('admin:start', { runId });
    if (settings.evaluate) {
      const evaluator = startEvaluator(url, token, folder, fail);
      cleanup.add('the evaluator', () => endChild(evaluator));
    }
    const started = Date.now();
    await Promise.all(
      tabs.map(async (tab) => {
        const page = await VolunteerTab.open(browser, url, tab);
        cleanup.add(`the tab of ${tab.name}`, () => page.close());
        page.onTrouble((message) => io.note(`${tab.name}: ${message}`));
        const verdict = await page.whenReady();
        io.note(`${tab.name}: ${verdict}${tab.task ? ` · ${tab.task}` : ''}`);
        await page.start();
      }),
    );
    const snapshot = await watchUntilOver(admin, runId, watching);
    io.note(`${snapshot.run.outcome ?? 'The run is over.'} (${Math.round((Date.now() - started) / 1000)} s)`);

    const exportRank = Math.max(...settings.ranks);
    const adapter = join(folder, 'adapter');
    await mkdir(adapter, { recursive: true });
    for (const file of ADAPTER_FILES) {
      await writeFile(
        join(adapter, file),
        await download(url, `${ROUTES.adapter(runId, file)}?rank=${exportRank}`, token),
      );
    }
    const metrics = join(folder, 'metrics.jsonl');
    await writeFile(metrics, await download(url, ROUTES.events(runId), token));

    const { before, after, ...told } = reportRounds(snapshot);
    const unigram = await unigramLosses(
      await readModelFolder(model, io),
      tasks,
      settings.tasks,
      settings.sequenceLength,
    );
    const data = Object.fromEntries(settings.tasks.map((task) => [task, join(tasks, task, 'test.jsonl')]));
    const report = { gpu, model, data, ...told, heldOutLoss: { before, after, unigram }, adapter, exportRank, metrics };
    await writeFile(join(folder, 'report.json'), `${JSON.stringify(report, null, 2)}\n`);
    return report;
  } finally {
    await cleanup.run(io);
  }
}

/** Makes the paths of an experiment file absolute. */
export const resolveExperiment = (experiment: Experiment, file: string): Experiment => ({
  ...experiment,
  model: join(dirname(file), experiment.model),
  tasks: join(dirname(file), experiment.tasks),
});
