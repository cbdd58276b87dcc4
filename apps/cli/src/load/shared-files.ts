// The files of a run, shared by all sessions of one load process: each is fetched and checked once, and nothing that the
// load tool's trainer does not read is fetched at all. With a copy a session, ten thousand of them would not fit.
import type { BlobReference, Manifest, RunView } from '@weft/protocol';
import type { ModelFiles, VolunteerFiles } from '@weft/volunteer';

/** Start weights kept: one for each rank and version that is being trained now. */
const BLOBS_KEPT = 32;

type Fetching = Parameters<VolunteerFiles['blob']>[2];

export class SharedFiles implements VolunteerFiles {
  readonly #files: VolunteerFiles;
  readonly #manifests = new Map<string, Promise<Manifest>>();
  readonly #blobs = new Map<string, Promise<Uint8Array>>();

  constructor(files: VolunteerFiles) {
    this.#files = files;
  }

  manifest(run: RunView, signal: AbortSignal): Promise<Manifest> {
    return shared(this.#manifests, run.runHash, signal, (never) => this.#files.manifest(run, never));
  }

  /** None: the trainer has no use for them. */
  async model(): Promise<ModelFiles> {
    return new Map();
  }

  /** None: as above. */
  async rows(): Promise<string> {
    return '';
  }

  async blob(reference: BlobReference, pieceBytes: number, fetching: Fetching): Promise<Uint8Array> {
    const bytes = await shared(this.#blobs, reference.sha256, fetching.signal, (signal) =>
      this.#files.blob(reference, pieceBytes, { signal, whenRunning: async () => undefined, onBytes: () => undefined }),
    );
    const oldest = this.#blobs.keys().next();
    if (this.#blobs.size > BLOBS_KEPT && !oldest.done) this.#blobs.delete(oldest.value);
    fetching.onBytes(bytes.length);
    return bytes;
  }
}

/** The work of this key, begun once for all who ask; each waits under its own signal. What failed is begun anew. */
async function shared<T>(
  kept: Map<string, Promise<T>>,
  key: string,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const known = kept.get(key);
  const result = known ?? work(new AbortController().signal);
  if (!known) {
    kept.set(key, result);
    result.catch(() => kept.delete(key));
  }
  const value = await result;
  signal.throwIfAborted();
  return value;
}
