// Who is asking, and whether it may: the admin token, accounts and their sessions behind one door for sockets, HTTP and the
// command line. Knows no transport.
import {
  type Account,
  type Actor,
  ProtocolError,
  type Role,
  roleReaches,
  type SessionInfo,
  type SignInReply,
} from '@weft/protocol';
import type { AccountEntry } from './accounts.ts';
import { Accounts } from './accounts.ts';
import { SESSION_TIMES, type SessionEntry, Sessions, type SessionTimes } from './sessions.ts';
import { SIGN_IN_RULES, SignIn, type SignInRules } from './sign-in.ts';
import { AdminToken } from './token.ts';

/** Name in the log of whoever holds the admin token. No account may have it. */
export const TOKEN_NAME = 'admin';

export interface AccessOptions {
  readonly dataDir: string;
  readonly now: () => Date;
  /** Monotonic milliseconds. */
  readonly monotonic: () => number;
  /** Accepted as the admin token besides the folder's own. */
  readonly adminToken?: string;
  readonly times?: Partial<SessionTimes>;
  readonly signIn?: Partial<SignInRules>;
}

export class Access {
  readonly #token: AdminToken;
  readonly #accounts: Accounts;
  readonly #sessions: Sessions;
  readonly #signIn: SignIn;
  readonly #listeners = new Set<() => void>();

  constructor({ dataDir, now, monotonic, adminToken, times, signIn }: AccessOptions) {
    this.#token = new AdminToken(dataDir, now, adminToken);
    this.#accounts = new Accounts(dataDir, now);
    this.#sessions = new Sessions(dataDir, now, { ...SESSION_TIMES, ...times });
    this.#signIn = new SignIn(this.#accounts, { ...SIGN_IN_RULES, ...signIn }, monotonic);
  }

  /** The admin token when it was made just now, to be shown once. */
  get newToken(): string | null {
    return this.#token.newToken;
  }

  /** Calls `listener` whenever somebody's rights may have become fewer. Returns a function that stops it. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }

  /** Whose credential this is, or null. `use` counts as use of its session. */
  find(credential: string, options: { use: boolean } = { use: false }): Actor | null {
    if (this.#token.accepts(credential)) return { name: TOKEN_NAME, role: 'owner', sessionId: null };
    const session = this.#sessions.find(credential, options);
    const account = session && this.#accounts.find(session.account);
    return session && account ? { name: account.name, role: account.role, sessionId: session.sessionId } : null;
  }

  /** Throws ProtocolError 'unauthorised' for an unknown credential, 'forbidden' for a role below `needed`. */
  check(credential: string, needed: Role): Actor {
    const actor = this.find(credential, { use: true });
    if (!actor) {
      throw new ProtocolError(
        'unauthorised',
        'This is neither a session that is still open nor the server’s admin token. Sign in again; a lost token is replaced by weft admin new-token.',
      );
    }
    if (!roleReaches(actor.role, needed)) {
      const article = (role: Role) => `${role === 'viewer' ? 'a' : 'an'} ${role}`;
      throw new ProtocolError(
        'forbidden',
        `This takes ${article(needed)}; ${actor.name} is ${article(actor.role)}. An owner can change that.`,
      );
    }
    return actor;
  }

  /** Throws ProtocolError 'unauthorised' or 'rate-limited'. */
  async signIn(name: string, password: string, address: string): Promise<SignInReply> {
    const account = await this.#signIn.verify(name, password, address);
    const { token, session } = this.#sessions.open(account.name);
    return {
      token,
      name: account.name,
      role: account.role,
      sessionId: session.sessionId,
      expiresAt: this.#sessions.expiresAt(session).toISOString(),
    };
  }

  accounts(): Account[] {
    return this.#accounts.all().map((account) => this.#shown(account));
  }

  async addAccount(name: string, role: Role, password: string): Promise<Account> {
    if (name === TOKEN_NAME) {
      throw new ProtocolError('account-exists', `"${TOKEN_NAME}" stands for the admin token; choose another name.`);
    }
    return this.#shown(await this.#accounts.add(name, role, password));
  }

  removeAccount(name: string): void {
    this.#accounts.remove(name);
    this.#sessions.end(({ account }) => account === name);
    this.#changed();
  }

  setRole(name: string, role: Role): Account {
    const account = this.#accounts.setRole(name, role);
    this.#changed();
    return this.#shown(account);
  }

  /** Ends the account's sessions too: whoever knew the old password is out. */
  async setPassword(name: string, password: string): Promise<Account> {
    const account = await this.#accounts.setPassword(name, password);
    this.#sessions.end((session) => session.account === name);
    this.#changed();
    return this.#shown(account);
  }

  sessions(asker: Actor | null): SessionInfo[] {
    return this.#sessions.all().map((session) => ({
      sessionId: session.sessionId,
      account: session.account,
      createdAt: session.createdAt,
      lastUsedAt: session.lastUsedAt,
      expiresAt: this.#sessions.expiresAt(session).toISOString(),
      current: asker?.sessionId === session.sessionId,
    }));
  }

  /** Ends one session, or all of an account. Throws ProtocolError 'unknown-account' when there is nothing of that name. */
  endSessions(which: { readonly sessionId: string } | { readonly account: string }): number {
    const fits = (session: SessionEntry) =>
      'sessionId' in which ? session.sessionId === which.sessionId : session.account === which.account;
    if ('account' in which) this.#accounts.get(which.account);
    const ended = this.#sessions.end(fits);
    if ('sessionId' in which && ended === 0) {
      throw new ProtocolError('unknown-account', 'There is no open session of this id; it may have ended by itself.');
    }
    this.#changed();
    return ended;
  }

  newAdminToken(): string {
    const token = this.#token.renew();
    this.#changed();
    return token;
  }

  #shown({ name, role, createdAt }: AccountEntry): Account {
    const sessions = this.#sessions.all().filter((session) => session.account === name).length;
    return { name, role, createdAt, sessions };
  }
}
