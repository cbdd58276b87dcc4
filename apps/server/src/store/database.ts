// The index of past work, written behind the files and made equal to them again whenever it was away, is behind or damaged.
// No round ever waits for it. Where it lives, PGlite or PostgreSQL, is passed in.
import { type Contributor, ProtocolError, type RoundRecord } from '@weft/protocol';
import type { Logger } from 'pino';
import { messageOf, ServerError } from '../errors.ts';
import { databaseOver, type IndexPlace } from './connection.ts';
import type { HistoryIndex, IndexedReceipt, IndexedRun, Receipted } from './history.ts';
import { compareRun, type OpenIndex, readContributors, readReceipts, writeReceipts, writeRound } from './index-rows.ts';

/** Works kept while the database is slower than the rounds; beyond it the run is compared with its files instead. */
const MOST_WAITING = 5_000;
/** Receipts are written together, for one transaction an upload would take a core from a round in which all deliver. */
const RECEIPTS_AFTER_MS = 1_000;
const RECEIPTS_TOGETHER = 500;
const FIRST_RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 60_000;
/** How long a stop waits for what is being written; the next start finds what was not. */
const CLOSE_MS = 2_000;

interface Work {
  /** Of the run it writes; null for a question. */
  readonly runId: string | null;
  run(index: OpenIndex): Promise<void>;
  /** It will not be done: the database has gone, or a comparison does more. */
  dropped(error: Error): void;
}

export class History implements HistoryIndex {
  readonly #place: IndexPlace;
  readonly #logger: Logger;
  readonly #runs = new Map<string, IndexedRun>();
  /** Runs whose rows may differ from their files. */
  readonly #behind = new Set<string>();
  /** Rounds by run whose sidecars are to be read again; all of them where this process has never read them. */
  readonly #reread = new Map<string, Set<number> | 'all'>();
  readonly #waiting: Work[] = [];
  /** Receipts by run that wait for others. Whatever depends on the order of things flushes them first. */
  readonly #receipts = new Map<string, IndexedReceipt[]>();
  #receiptsTimer: NodeJS.Timeout | null = null;
  readonly #closing = new AbortController();
  #index: OpenIndex | null = null;
  #working: Promise<void> | null = null;
  #timer: NodeJS.Timeout | null = null;
  #failures = 0;
  #problem: Error | null = null;

  constructor(place: IndexPlace, logger: Logger) {
    this.#place = place;
    this.#logger = logger;
  }

  /** Works and runs not yet in the index. */
  get behind(): number {
    return this.#waiting.filter(({ runId }) => runId !== null).length + this.#receipts.size + this.#behind.size;
  }

  /** Why the index is away; null while it is there, or has not been needed yet. */
  get problem(): string | null {
    return this.#problem && messageOf(this.#problem);
  }

  /** Tries the database once, for a start to fail on settings that cannot work. Throws ServerError 'database-settings'. */
  async connect(): Promise<void> {
    await this.#work();
    if (this.#problem instanceof ServerError && this.#problem.code === 'database-settings') throw this.#problem;
  }

  catchUp(run: IndexedRun): void {
    const { runId } = run.definition;
    this.#runs.set(runId, run);
    this.#reread.set(runId, 'all');
    this.filesChanged(runId);
  }

  filesChanged(runId: string): void {
    this.#flushReceipts();
    this.#behind.add(runId);
    this.#wake();
  }

  receiptsChanged(runId: string, round: number): void {
    this.#flushReceipts();
    const remember = () => {
      const known = this.#reread.get(runId);
      if (known !== 'all') this.#reread.set(runId, new Set([...(known ?? []), round]));
    };
    const run = this.#runs.get(runId);
    if (run) this.#later(runId, (index) => readReceipts(index, run, round), remember);
  }

  upload({ receipt }: Pick<Receipted, 'receipt'>): void {
    const together = this.#receipts.get(receipt.runId) ?? [];
    together.push(receipt);
    this.#receipts.set(receipt.runId, together);
    if (together.length >= RECEIPTS_TOGETHER) this.#flushReceipts();
    else this.#receiptsTimer ??= setTimeout(() => this.#flushReceipts(), RECEIPTS_AFTER_MS).unref();
  }

  #flushReceipts(): void {
    if (this.#receiptsTimer) clearTimeout(this.#receiptsTimer);
    this.#receiptsTimer = null;
    const all = [...this.#receipts];
    this.#receipts.clear();
    for (const [runId, receipts] of all) this.#later(runId, (index) => writeReceipts(index, receipts));
  }

  round(runId: string, record: RoundRecord): void {
    this.#later(runId, (index) => writeRound(index, runId, record));
  }

  /** Who has contributed to a run, most target tokens first. Rejects with ProtocolError 'index-away' while it is away. */
  contributors(runId: string): Promise<Contributor[]> {
    return this.#ask((index) => readContributors(index, runId));
  }

  #later(runId: string, run: (index: OpenIndex) => Promise<void>, dropped: () => void = () => undefined): void {
    if (this.#index && this.#waiting.length < MOST_WAITING) this.#waiting.push({ runId, run, dropped });
    else {
      dropped();
      this.#behind.add(runId);
    }
    this.#wake();
  }

  /** Asks the database once everything told so far is in it. */
  #ask<T>(question: (index: OpenIndex) => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const dropped = (cause: Error) =>
        reject(
          new ProtocolError('index-away', 'The history index cannot be reached now; it is tried again all the time.', {
            retryAfterMs: 10_000,
            cause,
          }),
        );
      if (this.#closing.signal.aborted) return dropped(new ServerError('database', 'The server is stopping.'));
      if (this.#problem) return dropped(this.#problem);
      this.#flushReceipts();
      this.#waiting.push({ runId: null, run: async (index) => resolve(await question(index)), dropped });
      this.#begin();
    });
  }

  /** Begins to work now, or when the database is tried next. */
  #wake(): void {
    if (this.#closing.signal.aborted || this.#working || this.#timer) return;
    if (this.#index) this.#begin();
    else this.#beginIn(this.#place.openAfterMs);
  }

  #beginIn(ms: number): void {
    this.#timer ??= setTimeout(() => this.#begin(), ms);
    this.#timer.unref();
  }

  #begin(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
    void this.#work();
  }

  #work(): Promise<void> {
    this.#working ??= this.#workAll()
      .catch((error: unknown) => this.#lose(error))
      .finally(() => {
        this.#working = null;
        if (this.#index && (this.#waiting.length > 0 || this.#behind.size > 0)) this.#wake();
      });
    return this.#working;
  }

  async #workAll(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      const index = this.#index ?? (await this.#open());
      const [runId] = this.#behind;
      if (runId !== undefined) {
        this.#behind.delete(runId);
        await this.#compare(index, runId);
        continue;
      }
      const work = this.#waiting[0];
      if (!work) {
        this.#failures = 0;
        return;
      }
      await work.run(index);
      if (this.#waiting[0] === work) this.#waiting.shift();
    }
  }

  async #compare(index: OpenIndex, runId: string): Promise<void> {
    const run = this.#runs.get(runId);
    // What waits of this run is in the files already, and in the rows after the comparison.
    const all = this.#waiting.splice(0);
    for (const work of all) {
      if (work.runId === runId) work.dropped(new ServerError('database', 'The run is compared with its files.'));
      else this.#waiting.push(work);
    }
    const reread = this.#reread.get(runId) ?? new Set<number>();
    if (!run) return;
    await compareRun(index, run, reread);
    if (this.#reread.get(runId) === reread) this.#reread.delete(runId);
  }

  async #open(): Promise<OpenIndex> {
    const connection = await this.#place.open(this.#closing.signal, (error) => {
      if (this.#index?.connection === connection) this.#lose(error);
    });
    this.#index = { connection, database: databaseOver(connection) };
    for (const runId of this.#runs.keys()) this.#behind.add(runId);
    if (this.#problem) this.#logger.info({ index: this.#place.name }, 'the history index is back and catches up');
    this.#problem = null;
    return this.#index;
  }

  /** The database has gone, or refuses what it is told: starts over with a connection of its own, after a while. */
  #lose(error: unknown): void {
    const problem = error instanceof Error ? error : new ServerError('database', String(error));
    const lost = this.#index;
    this.#index = null;
    void lost?.connection.end();
    for (const runId of this.#runs.keys()) this.#behind.add(runId);
    for (const { dropped } of this.#waiting.splice(0)) dropped(problem);
    if (this.#closing.signal.aborted) return;
    this.#failures += 1;
    if (!this.#problem) this.#logger.error({ err: problem, index: this.#place.name }, 'the history index is away');
    this.#problem = problem;
    this.#beginIn(Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** (this.#failures - 1)) * (0.5 + Math.random() / 2));
  }

  /** What was not written is written after the next start. */
  async close(): Promise<void> {
    this.#flushReceipts();
    this.#closing.abort();
    if (this.#timer) clearTimeout(this.#timer);
    const late = new Promise<'late'>((resolve) => setTimeout(() => resolve('late'), CLOSE_MS).unref());
    const working = this.#working?.then(() => 'ended' as const) ?? 'ended';
    const closed = Promise.race([working, late]).then((how) =>
      how === 'late' ? this.#index?.connection.end() : this.#index?.connection.close(),
    );
    // A database that goes away while the server stops costs nothing; the files are there.
    await Promise.race([closed.catch(() => undefined), late]);
    for (const { dropped } of this.#waiting.splice(0)) dropped(new ServerError('database', 'The server is stopping.'));
  }
}
