// Folders and files on disk as the rest of Weft takes them: bytes by name. What is missing is named with its path.
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type DataRow, FormatError, type LoraAdapter, parseDataLines, readAdapter, writeAdapter } from '@weft/formats';
import { type BaseModel, loadModel, MODEL_FILES } from '@weft/trainer';
import { CommandError } from './command.ts';

const isMissing = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === 'ENOENT';

/** The bytes of a file, or null when there is none. Throws CommandError 'unreadable' for anything else. */
async function readIfThere(path: string): Promise<Uint8Array | null> {
  try {
    return await readFile(path);
  } catch (cause) {
    if (isMissing(cause)) return null;
    throw new CommandError('unreadable', `${path} cannot be read; check that it is a file you may read.`, { cause });
  }
}

async function requireFolder(path: string, what: string): Promise<void> {
  const found = await stat(path).catch(() => null);
  if (!found?.isDirectory())
    throw new CommandError('no-such-folder', `There is no folder ${path}; it should hold ${what}.`);
}

/** Reads a Hugging Face model folder. Throws CommandError 'no-such-folder' or what {@link loadModel} throws. */
export async function readModelFolder(path: string): Promise<BaseModel> {
  await requireFolder(path, `a model (${MODEL_FILES.join(', ')})`);
  const files = new Map<string, Uint8Array>();
  for (const name of MODEL_FILES) {
    const bytes = await readIfThere(join(path, name));
    if (bytes) files.set(name, bytes);
  }
  return loadModel(files);
}

/** Reads a PEFT adapter folder. Throws CommandError 'no-such-folder', FormatError 'adapter-missing' or another. */
export async function readAdapterFolder(path: string): Promise<LoraAdapter> {
  await requireFolder(path, 'an adapter (adapter_config.json, adapter_model.safetensors)');
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

/** Writes a file, creating its folder. Throws CommandError 'unwritable'. */
export async function writeOutput(path: string, content: Uint8Array | string): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, content);
  } catch (cause) {
    throw new CommandError('unwritable', `${path} cannot be written; choose another place.`, { cause });
  }
}

/** Reads rows of a JSONL file. Throws CommandError 'no-such-file' or FormatError 'data-line', 'data-empty'. */
export async function readRows(path: string): Promise<DataRow[]> {
  const bytes = await readIfThere(path);
  if (!bytes) throw new CommandError('no-such-file', `There is no file ${path}.`);
  return parseDataLines(new TextDecoder().decode(bytes), path);
}
