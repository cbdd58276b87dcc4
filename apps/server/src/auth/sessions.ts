// Sessions of signed-in admins: 256 random bits each, of which only the hash is kept, in one fsynced file. They end when
// unused for a while, at a fixed age, when revoked, and with their account.
import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { accountNameSchema, idSchema, sha256Schema } from '@weft/protocol';
import { z } from 'zod';
import { readJson, writeJson } from '../store/files.ts';

const sessionEntrySchema = z.object({
  sessionId: idSchema,
  account: accountNameSchema,
  tokenSha256: sha256Schema,
  createdAt: z.iso.datetime(),
  lastUsedAt: z.iso.datetime(),
});
export type SessionEntry = z.infer<typeof sessionEntrySchema>;
const fileSchema = z.object({ sessions: z.array(sessionEntrySchema) });

export interface SessionTimes {
  /** Milliseconds without use after which a session ends. */
  readonly idleMs: number;
  /** Milliseconds after which it ends in any case. */
  readonly maximumMs: number;
}
export const SESSION_TIMES: SessionTimes = { idleMs: 12 * 3_600_000, maximumMs: 7 * 86_400_000 };

/** Sessions of one account; signing in once more ends the one longest unused. */
const MOST_OF_ACCOUNT = 20;
/** Use is written down no more often than this: a kill shortens a session by that much, and never lengthens it. */
const USE_EVERY_MS = 60_000;

const digest = (token: string): string => createHash('sha256').update(token, 'utf8').digest('hex');

export class Sessions {
  readonly #path: string;
  readonly #now: () => Date;
  readonly #times: SessionTimes;
  /** By the token's hash: finding one tells nothing of the others by its time, as nobody chooses a hash. */
  #sessions: Map<string, SessionEntry>;

  constructor(dataDir: string, now: () => Date, times: SessionTimes) {
    this.#path = join(dataDir, 'sessions.json');
    this.#now = now;
    this.#times = times;
    const kept = readJson(this.#path, fileSchema)?.sessions ?? [];
    this.#sessions = new Map(kept.map((session) => [session.tokenSha256, session]));
  }

  expiresAt({ createdAt, lastUsedAt }: SessionEntry): Date {
    const { idleMs, maximumMs } = this.#times;
    return new Date(Math.min(Date.parse(lastUsedAt) + idleMs, Date.parse(createdAt) + maximumMs));
  }

  #isLive(session: SessionEntry): boolean {
    return this.expiresAt(session) > this.#now();
  }

  /** Live ones, newest first. */
  all(): SessionEntry[] {
    const live = [...this.#sessions.values()].filter((session) => this.#isLive(session));
    return live.sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1));
  }

  open(account: string): { token: string; session: SessionEntry } {
    const token = randomBytes(32).toString('base64url');
    const at = this.#now().toISOString();
    const session: SessionEntry = {
      sessionId: randomBytes(9).toString('base64url'),
      account,
      tokenSha256: digest(token),
      createdAt: at,
      lastUsedAt: at,
    };
    const live = this.all();
    const own = live.filter((each) => each.account === account);
    own.sort((a, b) => (a.lastUsedAt < b.lastUsedAt ? 1 : -1));
    const tooMany = new Set(own.slice(MOST_OF_ACCOUNT - 1));
    this.#write([...live.filter((each) => !tooMany.has(each)), session]);
    return { token, session };
  }

  /** The live session of this token, or null. `use` counts as use of it. */
  find(token: string, options: { use: boolean }): SessionEntry | null {
    const session = this.#sessions.get(digest(token));
    if (!session || !this.#isLive(session)) return null;
    const now = this.#now();
    if (!options.use || now.getTime() - Date.parse(session.lastUsedAt) < USE_EVERY_MS) return session;
    const used = { ...session, lastUsedAt: now.toISOString() };
    const rest = this.all().filter((each) => each.sessionId !== session.sessionId);
    this.#write([...rest, used]);
    return used;
  }

  byId(sessionId: string): SessionEntry | undefined {
    return this.all().find((session) => session.sessionId === sessionId);
  }

  /** Ends those that `which` holds for; returns how many. On disk when it returns. */
  end(which: (session: SessionEntry) => boolean): number {
    const live = this.all();
    const rest = live.filter((session) => !which(session));
    if (rest.length < live.length) this.#write(rest);
    return live.length - rest.length;
  }

  #write(sessions: readonly SessionEntry[]): void {
    writeJson(this.#path, { sessions }, { mode: 0o600 });
    this.#sessions = new Map(sessions.map((session) => [session.tokenSha256, session]));
  }
}
