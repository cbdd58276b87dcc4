// Folders and files on disk as the rest of Weft takes them: bytes by name, weights in parts. What is missing is named with
// its path.
import { mkdir, open, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import {
  type ByteSource,
  type DataFormat,
  type DataRow,
  FormatError,
  type LoraAdapter,
  parseData,
  readAdapter,
  writeAdapter,
} from '@weft/formats';
import { type BaseModel, loadModel, MODEL_FILES } from '@weft/trainer';
import { CommandError, type Io } from './command.ts';
import { systemCode, unreadable, writeFailure } from './disk.ts';
import { resolveModel } from './hub/resolve.ts';

/** The bytes of a file, or null when there is none. Throws CommandError 'unreadable' for anything else. */
export async function readIfThere(path: string): Promise<Uint8Array | null> {
  try {
    return await readFile(path);
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return null;
    throw unreadable(path, cause);
  }
}

async function requireFolder(path: string, what: string): Promise<void> {
  const found = await stat(path).catch(() => null);
  if (!found?.isDirectory())
    throw new CommandError('no-such-folder', `There is no folder ${path}; it should hold ${what}.`);
}

/**
 * A file read in parts. It is opened for each part, so that nothing has to be closed; one that changes meanwhile is noticed.
 * Throws CommandError 'unreadable' or 'file-changed'.
 */
export async function fileSource(path: string): Promise<ByteSource> {
  const unread = (cause: unknown): never => {
    throw unreadable(path, cause);
  };
  const { size, mtimeMs } = await stat(path).catch(unread);
  return {
    size,
    async read(offset, length) {
      const handle = await open(path, 'r').catch(unread);
      try {
        const now = await handle.stat();
        if (now.size !== size || now.mtimeMs !== mtimeMs)
          throw new CommandError('file-changed', `${path} was changed while it was read. Run the command again.`);
        const bytes = new Uint8Array(Math.max(Math.min(length, size - offset), 0));
        for (let done = 0; done < bytes.length; ) {
          const { bytesRead } = await handle.read(bytes, done, bytes.length - done, offset + done).catch(unread);
          if (bytesRead === 0) return bytes.subarray(0, done);
          done += bytesRead;
        }
        return bytes;
      } finally {
        await handle.close();
      }
    },
  };
}

/** A model and where it came from. */
export interface OpenedModel extends BaseModel {
  /** What an adapter calls its base: ORG/NAME, or the folder as it was given. */
  readonly name: string;
}

/**
 * Opens a Hugging Face model: a folder, with weights in one file or in shards, or hf:ORG/NAME[@REV], which is pulled on first
 * use. Weights stay on the disk until they are asked for. Throws CommandError 'no-such-folder', or what {@link resolveModel}
 * and {@link loadModel} throw.
 */
export async function readModelFolder(spec: string, io: Io): Promise<OpenedModel> {
  const { files, name } = await openModelFiles(spec, io);
  return { ...(await loadModel(files)), name };
}

/** The files of such a model, by name. Throws CommandError 'no-such-folder', or what {@link resolveModel} throws. */
export async function openModelFiles(
  spec: string,
  io: Io,
): Promise<{ files: ReadonlyMap<string, ByteSource>; name: string }> {
  const { folder, name } = await resolveModel(spec, io);
  await requireFolder(folder, `a model (${MODEL_FILES.join(', ')})`);
  const files = new Map<string, ByteSource>();
  for (const entry of await readdir(folder)) {
    const path = join(folder, entry);
    // Links, as in the hub's cache, count as what they lead to.
    if (/\.(json|safetensors|jinja)$/.test(entry) && (await stat(path)).isFile())
      files.set(entry, await fileSource(path));
  }
  return { files, name };
}

/** Throws CommandError 'no-such-folder'. */
export const requireAdapterFolder = (path: string): Promise<void> =>
  requireFolder(path, 'an adapter (adapter_config.json, adapter_model.safetensors)');

/** Reads a PEFT adapter folder. Throws CommandError 'no-such-folder', FormatError 'adapter-missing' or another. */
export async function readAdapterFolder(path: string): Promise<LoraAdapter> {
  await requireAdapterFolder(path);
  const need = async (name: string): Promise<Uint8Array> => {
    const bytes = await readIfThere(join(path, name));
    if (!bytes)
      throw new FormatError('adapter-missing', `${path} has no ${name}, so it is not an adapter as PEFT saves one.`);
    return bytes;
  };
  const config = new TextDecoder().decode(await need('adapter_config.json'));
  return readAdapter({ config, weights: await need('adapter_model.safetensors') });
}

/** Writes a PEFT adapter folder with a model card, creating the folder. */
export async function writeAdapterFolder(path: string, adapter: LoraAdapter, card: string): Promise<void> {
  const files = { ...writeAdapter(adapter), 'README.md': card };
  for (const [name, content] of Object.entries(files)) await writeOutput(join(path, name), content);
}

/** Writes a file, creating its folder. Throws CommandError 'disk-full' or 'unwritable'. */
export async function writeOutput(path: string, content: Uint8Array | string): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, content);
  } catch (cause) {
    throw writeFailure(path, cause);
  }
}

/** Reads rows of a data file: JSON lines, CSV or plain text. Throws CommandError 'no-such-file', or as {@link parseData}. */
export async function readRows(path: string, format?: DataFormat): Promise<DataRow[]> {
  const bytes = await readIfThere(path);
  if (!bytes) throw new CommandError('no-such-file', `There is no file ${path}.`);
  return parseData(new TextDecoder().decode(bytes), path, format);
}
