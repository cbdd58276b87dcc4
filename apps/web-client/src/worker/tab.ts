// One volunteer tab, inside its worker: opens GPU, storage, key and socket, runs the session, and pushes what the page
// draws. The page's wishes come in through Comlink; nothing of the training happens on the page.
import { parseDataLines } from '@weft/formats';
import { everythingThatLeaves, type ForgetReply, type ManifestFile, NAMESPACES, type OwnLimits } from '@weft/protocol';
import {
  codeOf,
  httpDownloads,
  messageOf,
  RECONNECTION,
  type SessionData,
  type SessionState,
  socketTransport,
  systemClock,
  type Trainer,
  VolunteerSession,
} from '@weft/volunteer';
import { io } from 'socket.io-client';
import { version } from '../../package.json';
import type { Answer, DataCheck, DataWish, Fault, OpenOptions, TabState, WorkerApi } from './api.ts';
import { openIdentities, type TabKeys } from './identity.ts';
import { inviteFor } from './invites.ts';
import { openReceipts, type ReceiptStore } from './receipts.ts';
import { type TabFacts, tabState } from './snapshot.ts';
import { openStorage, type TabStorage } from './storage.ts';
import { openTrainer, RowCounter } from './trainer.ts';

/** A model larger than this is not fetched before the volunteer says so. Bytes. */
const ASK_FROM_BYTES = 64_000_000;
/** Snapshots are pushed at most so often, in milliseconds: the page redraws no faster. */
const PUSH_EVERY_MS = 200;

export class Tab implements WorkerApi {
  readonly #counter = new RowCounter();
  readonly #leaving = everythingThatLeaves();
  #port: MessagePort | null = null;
  #options: OpenOptions | null = null;
  #session: VolunteerSession | null = null;
  #opening: Promise<void> | null = null;
  #hidden = false;
  #storageNote: string | null = null;
  #storage: TabStorage | null = null;
  #keys: TabKeys | null = null;
  #receipts: ReceiptStore | null = null;
  /** Receipts handed to the store so far, of those the session has. */
  readonly #kept = new Set<string>();
  /** Bytes of the model that are not here yet; null until looked up. */
  #missingBytes: number | null = null;
  #asksToDownload = false;
  #looksUp = false;
  /** Whether Start was pressed, and Stop not since: then trying again means going on with the work. */
  #startWanted = false;
  /** Whether the session works on it now. */
  #helping = false;
  #data: SessionData = { kind: 'task', task: null };
  #pushTimer: ReturnType<typeof setTimeout> | null = null;
  #pushedAt = 0;

  open(port: MessagePort, options: OpenOptions): void {
    this.#port = port;
    this.#options = options;
    this.#hidden = options.hidden;
    this.#begin();
  }

  retry(): void {
    if (this.#startWanted) this.start();
    else this.#begin();
  }

  /** Opens what is not open yet, then prepares. Whatever fails is shown. */
  #begin(): void {
    this.#opening ??= this.#open().catch((error: unknown) => {
      this.#opening = null;
      this.#showOpeningFailed(error);
      throw error;
    });
    this.#opening.then(
      () => this.#session?.prepare().catch(shown),
      () => undefined,
    );
  }

  async #open(): Promise<void> {
    const options = this.#options;
    if (!options) throw new Error('open() has not been called.');
    // First, since without a GPU nothing else is worth doing, and its refusals name what is missing.
    const trainer = this.#counter.watch(await openTrainer(options));
    let session: VolunteerSession;
    try {
      session = await this.#createSession(options, trainer);
    } catch (error) {
      trainer.close();
      throw error;
    }
    this.#session = session;
    session.subscribe((state) => this.#changed(state));
  }

  async #createSession(options: OpenOptions, trainer: Trainer): Promise<VolunteerSession> {
    const [{ storage, note }, identities, receipts, invite] = await Promise.all([
      openStorage(),
      openIdentities(),
      openReceipts(),
      inviteFor(options.runId, options.invite),
    ]);
    this.#keys = identities;
    this.#receipts = receipts;
    this.#storageNote = note;
    this.#storage = storage;
    const clock = systemClock();
    const socket = io(`${location.origin}${NAMESPACES.volunteer}`, {
      transports: ['websocket', 'polling'],
      ...RECONNECTION,
      tryAllTransports: true,
    });
    const transport = socketTransport(socket, {
      clock,
      // A notice this page cannot read is one of a newer server; the next handshake names that properly.
      onInvalidNotice: (error) => console.warn(error.message),
    });
    return new VolunteerSession({
      transport,
      downloads: httpDownloads(location.origin),
      storage,
      trainer,
      reopenTrainer: async () => this.#counter.watch(await openTrainer(options)),
      identities,
      clock,
      client: { kind: 'page', version },
      name: null,
      runId: options.runId,
      ...(invite === null ? {} : { invite }),
      ownLimits: options.limits,
      data: this.#data,
      hidden: () => this.#hidden,
    });
  }

  #changed(state: SessionState): void {
    this.#keepReceipts(state);
    if (state.manifest && this.#missingBytes === null && !this.#looksUp) {
      // Pausing in the report that brings the list of files holds the download before its first byte.
      this.#looksUp = true;
      this.#session?.pause();
      void this.#considerDownload(state.manifest.files);
    }
    this.#push();
  }

  #keepReceipts({ receipts, run }: SessionState): void {
    if (!run) return;
    for (const receipt of receipts) {
      if (this.#kept.has(receipt.receiptId)) continue;
      this.#kept.add(receipt.receiptId);
      const kept = { receipt, key: run.receiptKey, server: location.origin };
      // It stays on the page for this visit; the next change tries again.
      this.#receipts?.keep(kept).catch(() => this.#kept.delete(receipt.receiptId));
    }
  }

  /** Goes on at once with what is small or kept already; else waits for the volunteer's word. */
  async #considerDownload(files: readonly ManifestFile[]): Promise<void> {
    let missing = 0;
    for (const file of files) {
      if (file.kind !== 'model') continue;
      // What cannot be looked up counts as missing; the download itself will name the trouble.
      const kept = await this.#storage?.size(`blobs/${file.sha256}`).catch(() => 0);
      missing += Math.max(0, file.bytes - (kept ?? 0));
    }
    this.#missingBytes = missing;
    if (missing > ASK_FROM_BYTES && !this.#startWanted) this.#asksToDownload = true;
    else this.#session?.resume();
    this.#push();
  }

  start(): void {
    this.#startWanted = true;
    this.#allowDownload();
    this.#begin();
    this.#setHelping(true);
    this.#opening
      ?.then(() => this.#session?.start())
      .catch(shown)
      .finally(() => this.#setHelping(false));
  }

  #setHelping(helping: boolean): void {
    this.#helping = helping;
    this.#push();
  }

  pause(): void {
    this.#session?.pause();
  }

  resume(): void {
    this.#allowDownload();
    this.#session?.resume();
  }

  #allowDownload(): void {
    if (!this.#asksToDownload) return;
    this.#asksToDownload = false;
    this.#session?.resume();
  }

  finishRound(): void {
    this.#session?.finishRound();
  }

  stop(): void {
    this.#startWanted = false;
    void this.#session?.stop();
  }

  leave(): void {
    void this.#session?.stop('page-closed');
  }

  async setLimits(limits: OwnLimits): Promise<void> {
    if (this.#options) this.#options = { ...this.#options, limits };
    await this.#session?.setOwnLimits(limits);
    // At once, so that the page shows the rank they leave before it says that they hold.
    this.#pushNow();
  }

  setHidden(hidden: boolean): void {
    this.#hidden = hidden;
    this.#session?.visibilityChanged();
  }

  async checkFile(file: File): Promise<DataCheck> {
    try {
      const text = await file.text();
      const rows = parseDataLines(text, 'your file').length;
      const counts = this.#counter.count(text);
      return { ok: true, rows, cut: counts?.cut ?? null, unlabelled: counts?.unlabelled ?? null };
    } catch (error) {
      return { ok: false, message: messageOf(error), code: codeOf(error) };
    }
  }

  async chooseData(wish: DataWish): Promise<DataCheck> {
    if (wish.kind === 'task') {
      this.#choose({ kind: 'task', task: wish.task });
      return { ok: true, rows: 0, cut: 0, unlabelled: 0 };
    }
    const check = await this.checkFile(wish.file);
    if (check.ok) this.#choose({ kind: 'own', rows: await wish.file.text(), consent: wish.consent });
    return check;
  }

  #choose(data: SessionData): void {
    this.#session?.setData(data);
    this.#data = data;
  }

  receiptsFile(): Promise<Answer<string>> {
    return answer(async () => {
      const receipts = (await this.#receipts?.all()) ?? [];
      return `${JSON.stringify({ receipts }, null, 1)}\n`;
    });
  }

  withdraw(receiptId: string): Promise<Answer<null>> {
    return answer(async () => {
      await this.#opened().withdraw(receiptId);
      await this.#receipts?.remove(receiptId);
      return null;
    });
  }

  forget(): Promise<Answer<ForgetReply>> {
    return answer(async () => {
      const session = this.#opened();
      this.#startWanted = false;
      const { run } = session.state;
      const reply = await session.forget();
      await session.close();
      this.#session = null;
      await this.#storage?.clear();
      if (run) {
        await this.#receipts?.forget(run.runId);
        await this.#keys?.remove(run);
      }
      return reply;
    });
  }

  #opened(): VolunteerSession {
    if (!this.#session) throw new Error('This page is not connected; reload it and try again.');
    return this.#session;
  }

  #facts(): TabFacts {
    return {
      leaving: this.#leaving,
      storageNote: this.#storageNote,
      helping: this.#helping,
      asksToDownload: this.#asksToDownload,
      missingBytes: this.#missingBytes,
      clockOrigin: performance.timeOrigin,
    };
  }

  /** Sends the newest state, at most every {@link PUSH_EVERY_MS}; the last change is never left out. */
  #push(): void {
    if (this.#pushTimer !== null) return;
    const wait = Math.max(0, this.#pushedAt + PUSH_EVERY_MS - performance.now());
    this.#pushTimer = setTimeout(() => {
      this.#pushTimer = null;
      this.#pushNow();
    }, wait);
  }

  #pushNow(): void {
    this.#pushedAt = performance.now();
    if (this.#session) this.#send(tabState(this.#session.state, this.#facts()));
  }

  #send(state: TabState | { readonly opening: Fault }): void {
    this.#port?.postMessage(state);
  }

  #showOpeningFailed(error: unknown): void {
    this.#send({ opening: { code: codeOf(error), message: messageOf(error), retrying: false } });
  }
}

async function answer<T>(work: () => Promise<T>): Promise<Answer<T>> {
  try {
    return { ok: true, value: await work() };
  } catch (error) {
    return { ok: false, message: messageOf(error), code: codeOf(error) };
  }
}

/** For promises whose failure the page is told of already. */
const shown = (): void => undefined;
