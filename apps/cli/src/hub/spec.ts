// How a model on a hub is written on the command line: ORG/NAME, or ORG/NAME@REV for a branch, tag or commit.
import { UsageError } from '../command.ts';

/** A model on a hub. `revision` is a branch, a tag or a commit. */
export interface HubModel {
  /** ORG/NAME. */
  readonly repo: string;
  readonly revision: string;
}

/** How `--model` tells a model on the hub from a folder. */
export const HUB_PREFIX = 'hf:';

const DEFAULT_REVISION = 'main';

/** Neither `.` nor `..` nor nothing: each part becomes part of a path. */
const isPlain = (part: string): boolean => /^[\w.-]+$/.test(part) && !/^\.+$/.test(part);

/** Parses ORG/NAME[@REV], with or without the `hf:` before it. Throws {@link UsageError}. */
export function parseHubModel(text: string): HubModel {
  const bare = text.startsWith(HUB_PREFIX) ? text.slice(HUB_PREFIX.length) : text;
  const at = bare.indexOf('@');
  const repo = at < 0 ? bare : bare.slice(0, at);
  const revision = at < 0 ? DEFAULT_REVISION : bare.slice(at + 1);
  const parts = repo.split('/');
  if (parts.length !== 2 || !parts.every(isPlain)) {
    throw new UsageError(`"${text}" names no model; write ORG/NAME or ORG/NAME@REV, as in HuggingFaceTB/SmolLM2-135M.`);
  }
  if (!revision.split('/').every(isPlain)) {
    throw new UsageError(`"${revision}" is no revision; give a branch, a tag or a commit after the @.`);
  }
  return { repo, revision };
}

/** Whether this names one commit, which never changes, rather than a branch or a tag. */
export const isCommit = (revision: string): boolean => /^[0-9a-f]{40}([0-9a-f]{24})?$/.test(revision);
