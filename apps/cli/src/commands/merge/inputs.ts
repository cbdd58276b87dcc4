// The adapters of a merge as they lie on the disk: configurations and headers are read and held against each other before
// any work; no value is, so that a thousand adapters cost a thousand file names.
import { join } from 'node:path';
import { type AdapterLayout, FormatError, readAdapterLayout, type SafetensorsHeader } from '@weft/formats';
import { type FileVersion, TensorFile } from '@weft/server/merge';
import { CommandError, type Io } from '../../command.ts';
import { systemCode, unreadable } from '../../disk.ts';
import { readIfThere, requireAdapterFolder } from '../../folders.ts';
import type { WeightedAdapter } from '../../weighted-adapter.ts';
import { inFolder } from './matrix-job.ts';

export interface OpenedAdapter {
  /** The folder. */
  readonly path: string;
  readonly file: FileVersion;
  readonly layout: AdapterLayout;
}

export interface MergeInput {
  readonly end: OpenedAdapter;
  readonly start: OpenedAdapter | null;
}

const CONFIG = 'adapter_config.json';
const WEIGHTS = 'adapter_model.safetensors';

const missing = (path: string, name: string): FormatError =>
  new FormatError('adapter-missing', `${path} has no ${name}, so it is not an adapter as PEFT saves one.`);

function openWeights(path: string): TensorFile {
  const file = join(path, WEIGHTS);
  try {
    return new TensorFile(file, WEIGHTS);
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    throw systemCode(cause) === 'ENOENT' ? missing(path, WEIGHTS) : unreadable(file, cause);
  }
}

/** Layouts of equal headers and configurations, of which a cohort has a few. */
type Layouts = Map<SafetensorsHeader, Map<string, AdapterLayout>>;

async function openAdapter(path: string, layouts: Layouts): Promise<OpenedAdapter> {
  await requireAdapterFolder(path);
  const bytes = await readIfThere(join(path, CONFIG));
  if (!bytes) throw missing(path, CONFIG);
  const config = new TextDecoder().decode(bytes);
  const { header, version } = openWeights(path);
  const known = layouts.get(header) ?? new Map<string, AdapterLayout>();
  const layout = known.get(config) ?? readAdapterLayout({ config, header });
  layouts.set(header, known.set(config, layout));
  return { path, file: version, layout };
}

/** The last part of a path or hub name: the folders of one model differ from machine to machine. */
const lastPart = (name: string): string => name.split(/[/\\]/).findLast((part) => part !== '') ?? '';

/** The base model all name; '' when none does. Throws CommandError 'adapter-model' when two differ. */
function commonBaseModel(adapters: Iterable<OpenedAdapter>, io: Io): string {
  let first: { path: string; baseModel: string } | null = null;
  const taken = new Set<string>();
  for (const { path, layout } of adapters) {
    const { baseModel } = layout;
    if (lastPart(baseModel) === '') continue;
    first ??= { path, baseModel };
    if (lastPart(baseModel) !== lastPart(first.baseModel)) {
      throw new CommandError(
        'adapter-model',
        `${path} adapts the model ${baseModel}, but ${first.path} adapts ${first.baseModel}; merge adapters of one ` +
          'model, or, if these are one, give both the same base_model_name_or_path in adapter_config.json.',
      );
    }
    if (baseModel === first.baseModel || taken.has(baseModel)) continue;
    taken.add(baseModel);
    io.note(`Taking ${baseModel} (${path}) for the same model as ${first.baseModel} (${first.path}).`);
  }
  return first?.baseModel ?? '';
}

/**
 * Opens every folder once, however often it is named. Throws CommandError 'no-such-folder', 'unreadable' or 'adapter-model', or
 * one that names the folder and has the code of the FormatError that its files gave.
 */
export async function openInputs(
  globalPath: string | undefined,
  given: readonly WeightedAdapter[],
  io: Io,
): Promise<{ global: OpenedAdapter | null; inputs: MergeInput[]; baseModel: string }> {
  const opened = new Map<string, OpenedAdapter>();
  const layouts: Layouts = new Map();
  const open = async (path: string): Promise<OpenedAdapter> => {
    io.signal.throwIfAborted();
    io.status(`reading ${path}`);
    try {
      const adapter = opened.get(path) ?? (await openAdapter(path, layouts));
      opened.set(path, adapter);
      return adapter;
    } catch (cause) {
      throw inFolder(path, cause);
    }
  };
  const global = globalPath === undefined ? null : await open(globalPath);
  const inputs: MergeInput[] = [];
  for (const { path, start } of given)
    inputs.push({ end: await open(path), start: start === null ? null : await open(start) });
  return { global, inputs, baseModel: commonBaseModel(opened.values(), io) };
}
