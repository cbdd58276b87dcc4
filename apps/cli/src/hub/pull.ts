// A model from a hub to a folder: what it needs and nothing else, a few files at a time, every byte checked, whatever
// arrived kept for the next try.
import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { WEIGHTS_INDEX_FILE } from '@weft/formats';
import { CommandError, formatBytes, type Io } from '../command.ts';
import { requireSpace, writeFailure } from '../disk.ts';
import { takeLock } from '../lock-file.ts';
import { byteProgress } from '../progress.ts';
import { fetchFile } from './fetch-file.ts';
import { type HubRequests, type HubSettings, hubRequests, type Patience } from './hub.ts';
import { companionsOf, type HubFile, listModel, weightsOf } from './listing.ts';
import { cachePlace, type Manifest, ownPlace, type Place, requireOwn, sizeOf, writeWhole } from './place.ts';
import type { HubModel } from './spec.ts';

export interface PullOptions {
  /** The folder to fill; the shared cache when left out. */
  readonly out?: string;
  readonly patience?: Patience;
}

export interface PulledModel {
  readonly repo: string;
  /** As asked for. */
  readonly revision: string;
  /** What it means now. */
  readonly commit: string;
  readonly folder: string;
  readonly files: readonly (HubFile & { readonly fetchedBytes: number })[];
  /** Bytes of all files, and how many of them the network had to carry this time. */
  readonly bytes: number;
  readonly fetchedBytes: number;
}

const FILES_AT_A_TIME = 3;

/** What stays the same while one pull runs. */
interface Pull {
  readonly model: HubModel;
  readonly commit: string;
  readonly place: Place;
  readonly requests: HubRequests;
  readonly io: Io;
}

/**
 * Pulls a model. Throws CommandErrors of the hub ('hub-unreachable', 'hub-busy', 'hub-denied', 'hub-gated',
 * 'hub-not-found', 'hub-no-model', 'hub-damaged', 'hub-answer') and of the disk ('disk-full', 'unwritable', 'unreadable',
 * 'not-empty'), and 'interrupted'. What has arrived is kept, and the next pull goes on from there.
 */
export async function pullModel(
  model: HubModel,
  settings: HubSettings,
  io: Io,
  options: PullOptions = {},
): Promise<PulledModel> {
  try {
    const requests = hubRequests(model, settings, io.signal, (text) => io.note(text), options.patience);
    io.status(`asking ${settings.endpoint} for ${model.repo}`);
    const { commit, files } = await listModel(model, requests);
    const companions = companionsOf(model.repo, files);
    const place = options.out === undefined ? cachePlace(settings.cache, model, commit) : ownPlace(options.out);
    await makeFolders(place, companions);
    const unlock = await takeLock(place.lockFile, io.signal, (holder) =>
      io.note(`process ${holder} is pulling into ${place.folder}; waiting for it`),
    );
    try {
      if (options.out !== undefined) await requireOwn(place, model, commit);
      return await pullListed({ model, commit, place, requests, io }, files, companions);
    } finally {
      await unlock();
    }
  } catch (error) {
    if (!io.signal.aborted) throw error;
    throw new CommandError(
      'interrupted',
      'Interrupted. What has arrived is kept; run the same command again to go on.',
    );
  }
}

async function makeFolders(place: Place, files: readonly HubFile[]): Promise<void> {
  for (const path of [place.folder, ...files.map(place.targetOf).map(dirname), dirname(place.lockFile)]) {
    await mkdir(path, { recursive: true }).catch((cause) => {
      throw writeFailure(path, cause);
    });
  }
}

async function pullListed(pull: Pull, files: readonly HubFile[], companions: readonly HubFile[]): Promise<PulledModel> {
  const { model, commit, place } = pull;
  const remember = (wanted: readonly HubFile[] | null) => {
    const manifest: Manifest = { repo: model.repo, commit, files: wanted ? [...wanted] : null };
    return writeWhole(place.manifestFile, `${JSON.stringify(manifest, null, 2)}\n`);
  };
  await remember(null);
  // The index, where there is one, says which other files hold weights.
  const index = companions.find(({ path }) => path === WEIGHTS_INDEX_FILE);
  const first = index ? await fetchAll(pull, [index]) : [];
  const indexText = index ? await readFile(join(place.folder, WEIGHTS_INDEX_FILE), 'utf8') : null;
  const rest = [...companions.filter((file) => file !== index), ...weightsOf(model.repo, files, indexText)];
  await requireSpace(place.folder, await missingBytes(place, rest), 'choose another place with --out or HF_HUB_CACHE');
  await remember([...(index ? [index] : []), ...rest]);
  const pulled = [...first, ...(await fetchAll(pull, rest))];
  await place.finish();
  const sum = (of: (file: (typeof pulled)[number]) => number) => pulled.reduce((total, file) => total + of(file), 0);
  return {
    repo: model.repo,
    revision: model.revision,
    commit,
    folder: place.folder,
    files: pulled.sort((a, b) => (a.path < b.path ? -1 : 1)),
    bytes: sum(({ bytes }) => bytes),
    fetchedBytes: sum(({ fetchedBytes }) => fetchedBytes),
  };
}

/** Bytes that are neither there nor kept in a part. */
async function missingBytes(place: Place, files: readonly HubFile[]): Promise<number> {
  let missing = 0;
  for (const file of files) {
    const target = place.targetOf(file);
    if ((await sizeOf(target)) !== file.bytes) missing += Math.max(file.bytes - (await sizeOf(`${target}.part`)), 0);
  }
  return missing;
}

/** Fetches some files at a time. When one fails, the others stop where they are and its error is thrown. */
async function fetchAll(
  { model, commit, place, requests, io }: Pull,
  files: readonly HubFile[],
): Promise<(HubFile & { fetchedBytes: number })[]> {
  const progress = byteProgress(
    io,
    files.reduce((sum, { bytes }) => sum + bytes, 0),
    'there',
  );
  const stop = new AbortController();
  const signal = AbortSignal.any([io.signal, stop.signal]);
  const failures: unknown[] = [];
  const done: (HubFile & { fetchedBytes: number })[] = [];
  // Small files first, so that the long ones run side by side at the end.
  const queue = [...files].sort((a, b) => a.bytes - b.bytes);
  const work = async () => {
    for (let file = queue.shift(); file && failures.length === 0; file = queue.shift()) {
      try {
        const url = `${requests.settings.endpoint}/${model.repo}/resolve/${commit}/${encodeURIComponent(file.path)}`;
        const context = { requests, signal, onBytes: progress.advance, note: progress.note };
        const fetchedBytes = await fetchFile(file, url, place.targetOf(file), context);
        await place.publish(file);
        done.push({ ...file, fetchedBytes });
        const how = fetchedBytes > 0 ? 'fetched and checked' : 'already there, checked';
        progress.note(`${file.path}  ${formatBytes(file.bytes)}  ${how}`);
      } catch (error) {
        failures.push(error);
        stop.abort(error);
      }
    }
  };
  await Promise.all(Array.from({ length: FILES_AT_A_TIME }, work));
  progress.stop();
  if (failures.length > 0) throw failures[0];
  return done;
}
