// What `--model` may be: a folder, or hf:ORG/NAME[@REV], which is pulled on first use and taken from the cache after that.
import type { Io } from '../command.ts';
import { hubSettings } from './hub.ts';
import { findPulled } from './place.ts';
import { pullModel } from './pull.ts';
import { HUB_PREFIX, parseHubModel } from './spec.ts';

export interface ResolvedModel {
  readonly folder: string;
  /** What an adapter calls its base: ORG/NAME, or the folder as it was given. */
  readonly name: string;
  /** The commit of a model from a hub. */
  readonly revision: string | null;
}

/**
 * The folder behind `spec`. A model that an earlier pull completed is used without asking the hub; the user is told which.
 * Throws UsageError for a malformed name, or as {@link pullModel}.
 */
export async function resolveModel(spec: string, io: Io): Promise<ResolvedModel> {
  if (!spec.startsWith(HUB_PREFIX)) return { folder: spec, name: spec, revision: null };
  const model = parseHubModel(spec);
  const settings = await hubSettings();
  const found = await findPulled(settings.cache, model);
  if (found) {
    io.note(
      `${spec}: using commit ${found.commit.slice(0, 12)} pulled earlier; weft pull ${model.repo} looks for newer`,
    );
    return { folder: found.folder, name: model.repo, revision: found.commit };
  }
  io.note(`${spec}: not here yet, pulling it from ${settings.endpoint}`);
  const { folder, commit } = await pullModel(model, settings, io);
  return { folder, name: model.repo, revision: commit };
}
