// The model's files of a run, fetched while the snapshot tells how far it is.
import type { RunView } from '@weft/protocol';
import type { VolunteerFiles } from './files.ts';
import type { ModelFiles } from './ports.ts';
import type { StateHolder } from './state.ts';

/** Shows manifest and progress in `holder`. Rejects as RunFiles does, or with the signal's reason. */
export async function fetchModel(
  files: VolunteerFiles,
  holder: StateHolder,
  run: RunView,
  signal: AbortSignal,
  whenRunning: () => Promise<void>,
): Promise<ModelFiles> {
  const manifest = await files.manifest(run, signal);
  const total = manifest.files.reduce((sum, file) => sum + (file.kind === 'model' ? file.bytes : 0), 0);
  const onBytes = (bytes: number) => holder.update({ download: { what: 'the model', bytes, total } });
  onBytes(0);
  holder.update({ manifest });
  const model = await files.model(manifest, { signal, onBytes, whenRunning });
  holder.update({ download: null });
  return model;
}
