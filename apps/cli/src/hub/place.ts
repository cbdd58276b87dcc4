// Where a pulled model stands: in the cache that the ecosystem's tools share (blobs by hash, a snapshot folder of links
// for each commit, refs for branches), or in a folder of one's own. Beside either lies a list of what was pulled, so that
// a model can be found complete again without asking the hub.
import { link, mkdir, readdir, readFile, readlink, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { getRepoFolderName } from '@huggingface/hub';
import { z } from 'zod';
import { CommandError } from '../command.ts';
import { systemCode, writeFailure } from '../disk.ts';
import type { HubFile } from './listing.ts';
import { type HubModel, isCommit } from './spec.ts';

const manifestSchema = z.object({
  repo: z.string(),
  commit: z.string(),
  /** null while the list is not known yet. */
  files: z
    .array(z.object({ path: z.string(), bytes: z.int(), algorithm: z.enum(['sha256', 'git-sha1']), hash: z.string() }))
    .nullable(),
});

/** What was asked of a hub and stands, or is about to stand, in a folder. */
export type Manifest = z.infer<typeof manifestSchema>;

export interface Place {
  /** The model folder in the end. */
  readonly folder: string;
  readonly manifestFile: string;
  readonly lockFile: string;
  /** Where the bytes of a file go. */
  targetOf(file: HubFile): string;
  /** Makes a file whose bytes have arrived appear in the folder. */
  publish(file: HubFile): Promise<void>;
  /** Called once when everything is there. */
  finish(): Promise<void>;
}

const repoFolder = (cache: string, repo: string): string =>
  join(resolve(cache), getRepoFolderName({ type: 'model', name: repo }));

const manifestIn = (base: string, commit: string): string => join(base, '.weft', `${commit}.json`);

/** The shared cache, in the layout of huggingface_hub. */
export function cachePlace(cache: string, { repo, revision }: HubModel, commit: string): Place {
  const base = repoFolder(cache, repo);
  const folder = join(base, 'snapshots', commit);
  const targetOf = ({ hash }: HubFile) => join(base, 'blobs', hash);
  return {
    folder,
    manifestFile: manifestIn(base, commit),
    lockFile: join(base, '.weft', 'lock'),
    targetOf,
    async publish(file) {
      const name = join(folder, file.path);
      const to = relative(folder, targetOf(file));
      // Whatever else is there, or cannot be read as a link, is replaced.
      if ((await readlink(name).catch(() => null)) === to) return;
      await rm(name, { force: true });
      await mkdir(folder, { recursive: true });
      // Windows keeps links from most users, but not second names.
      await symlink(to, name).catch((cause) => {
        if (systemCode(cause) !== 'EPERM') throw writeFailure(name, cause);
        return link(targetOf(file), name);
      });
    },
    async finish() {
      if (!isCommit(revision)) await writeWhole(join(base, 'refs', revision), commit);
    },
  };
}

/** A folder of one's own, holding nothing but the model. */
export function ownPlace(out: string): Place {
  const folder = resolve(out);
  return {
    folder,
    manifestFile: join(folder, '.weft-pull.json'),
    lockFile: join(folder, '.weft-pull.lock'),
    targetOf: ({ path }) => join(folder, path),
    publish: async () => {},
    finish: async () => {},
  };
}

/**
 * Refuses a folder of one's own that holds something else than this commit of this model. Throws CommandError 'not-empty'.
 */
export async function requireOwn(place: Place, { repo }: HubModel, commit: string): Promise<void> {
  const found = await readManifest(place.manifestFile);
  if (found && (found.repo !== repo || found.commit !== commit)) {
    throw new CommandError(
      'not-empty',
      `${place.folder} holds ${found.repo} at ${found.commit}, and ${repo} is at ${commit}. Choose another --out, or ask for the one it holds: ${found.repo}@${found.commit}.`,
    );
  }
  const strays = found
    ? []
    : (await readdir(place.folder)).filter((name) => join(place.folder, name) !== place.lockFile);
  if (strays.length > 0) {
    throw new CommandError(
      'not-empty',
      `${place.folder} is not empty (${strays[0]}); give --out a new or empty folder.`,
    );
  }
}

/** The manifest in a file; null when there is none, or none that can be understood. */
export async function readManifest(file: string): Promise<Manifest | null> {
  const text = await readIfThere(file);
  if (text === null) return null;
  try {
    return manifestSchema.parse(JSON.parse(text));
  } catch {
    // Written by a later version, or damaged: as good as none, the hub is asked again.
    return null;
  }
}

/** Puts text in a file in one step, so that readers find all of it or the old one. */
export async function writeWhole(file: string, text: string): Promise<void> {
  try {
    await mkdir(dirname(file), { recursive: true });
    await writeFile(`${file}.new`, text);
    await rename(`${file}.new`, file);
  } catch (cause) {
    throw writeFailure(file, cause);
  }
}

/** The folder of a model that an earlier pull into the cache completed; null when the hub must be asked. Sizes are looked at, hashes are not. */
export async function findPulled(
  cache: string,
  { repo, revision }: HubModel,
): Promise<{ folder: string; commit: string } | null> {
  const base = repoFolder(cache, repo);
  const commit = isCommit(revision) ? revision : (await readIfThere(join(base, 'refs', revision)))?.trim();
  if (commit === undefined || !isCommit(commit)) return null;
  const manifest = await readManifest(manifestIn(base, commit));
  if (!manifest?.files) return null;
  const folder = join(base, 'snapshots', commit);
  for (const { path, bytes } of manifest.files) {
    if ((await sizeOf(join(folder, path))) !== bytes) return null;
  }
  return { folder, commit };
}

/** Bytes of a file; 0 when there is none. */
export async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (cause) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(cause) ?? '')) return 0;
    throw new CommandError('unreadable', `${path} cannot be read; check that you may read it.`, { cause });
  }
}

async function readIfThere(file: string): Promise<string | null> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    if (['ENOENT', 'ENOTDIR', 'EISDIR'].includes(systemCode(cause) ?? '')) return null;
    throw new CommandError('unreadable', `${file} cannot be read; check that you may read it.`, { cause });
  }
}
