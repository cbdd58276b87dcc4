// What a model on a hub consists of: the commit a revision means, and the files of it that a model needs, with the size
// and the hash the hub states for each.
import { listFiles, modelInfo } from '@huggingface/hub';
import { CONFIG_FILE, WEIGHTS_FILE, WEIGHTS_INDEX_FILE, weightFilesOf } from '@weft/formats';
import { CommandError } from '../command.ts';
import type { HubRequests } from './hub.ts';
import { type HubModel, isCommit } from './spec.ts';

/** A file at the root of a repository. */
export interface HubFile {
  readonly path: string;
  readonly bytes: number;
  /** 'sha256' of the content for large files; 'git-sha1', the id of the git blob, for those in git itself. */
  readonly algorithm: 'sha256' | 'git-sha1';
  /** Hexadecimal. */
  readonly hash: string;
}

export interface Listing {
  readonly commit: string;
  readonly files: readonly HubFile[];
}

/** What goes with the weights: configuration, tokenizer, chat template, card and licence. */
const COMPANION =
  /^((config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template)\.json|vocab\.txt|merges\.txt|tokenizer\.model|spiece\.model|chat_template\.jinja|(readme|licen[cs]e|notice|use_policy|copying)([._-][\w.-]*)?)$/i;

/** Asks the hub. Throws CommandError 'hub-answer' for an answer that makes no sense, or as {@link HubRequests}. */
export async function listModel({ repo, revision }: HubModel, requests: HubRequests): Promise<Listing> {
  const hub = { hubUrl: requests.settings.endpoint, fetch: requests.fetch };
  const { sha: commit } = await understood(
    repo,
    modelInfo({ name: repo, revision, additionalFields: ['sha'], ...hub }),
  );
  if (typeof commit !== 'string' || !isCommit(commit)) throw nonsense(repo, `"${commit}" is no commit`);
  const entries = await understood(repo, collect(listFiles({ repo, revision: commit, ...hub })));
  const files = entries
    .filter(({ type }) => type === 'file')
    .map(({ path, size, oid, lfs }): HubFile => {
      const file: HubFile = lfs
        ? { path, bytes: lfs.size, algorithm: 'sha256', hash: lfs.oid }
        : { path, bytes: size, algorithm: 'git-sha1', hash: oid ?? '' };
      const digits = file.algorithm === 'sha256' ? 64 : 40;
      if (!Number.isSafeInteger(file.bytes) || file.bytes < 0 || !new RegExp(`^[0-9a-f]{${digits}}$`).test(file.hash))
        throw nonsense(repo, `it states no size or hash of ${path}`);
      return file;
    });
  return { commit, files };
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** The package throws SyntaxError and the like where an answer is not what it expects. */
async function understood<T>(repo: string, answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (cause) {
    if (cause instanceof SyntaxError || cause instanceof TypeError) throw nonsense(repo, cause.message, cause);
    throw cause;
  }
}

const nonsense = (repo: string, what: string, cause?: unknown): CommandError =>
  new CommandError(
    'hub-answer',
    `The hub's answer about ${repo} makes no sense: ${what}. Check HF_ENDPOINT, or try again later.`,
    { cause },
  );

/** The files beside the weights, the index of a sharded model included. Throws CommandError 'hub-no-model'. */
export function companionsOf(repo: string, files: readonly HubFile[]): HubFile[] {
  const has = (name: string) => files.some(({ path }) => path === name);
  if (!has(CONFIG_FILE)) {
    throw new CommandError(
      'hub-no-model',
      `${repo} has no ${CONFIG_FILE}, so it is no model as transformers saves one.`,
    );
  }
  if (!has(WEIGHTS_FILE) && !has(WEIGHTS_INDEX_FILE)) {
    const others = files.map(({ path }) => path).filter((path) => /\.(bin|gguf|safetensors|pt|pth|onnx)$/.test(path));
    const instead = others.length > 0 ? ` (it has ${others.slice(0, 3).join(', ')})` : '';
    throw new CommandError(
      'hub-no-model',
      `${repo} has neither ${WEIGHTS_FILE} nor ${WEIGHTS_INDEX_FILE}${instead}. Choose a revision or a copy of it in safetensors.`,
    );
  }
  return files.filter(({ path }) => COMPANION.test(path) || (path === WEIGHTS_INDEX_FILE && !has(WEIGHTS_FILE)));
}

/** The files with the weights; `indexText` is the content of the index, null for a model in one file. Throws CommandError 'hub-no-model', or FormatError for a damaged index. */
export function weightsOf(repo: string, files: readonly HubFile[], indexText: string | null): HubFile[] {
  return weightFilesOf(indexText).map((name) => {
    const file = files.find(({ path }) => path === name);
    if (!file) throw new CommandError('hub-no-model', `${repo} has no ${name}, which its ${WEIGHTS_INDEX_FILE} names.`);
    return file;
  });
}
