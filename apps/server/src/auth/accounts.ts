// The admins' accounts: a name, a role, a hashed password, in one fsynced file. Nothing here says who is signed in.
import { join } from 'node:path';
import { accountNameSchema, ProtocolError, type Role, roleSchema } from '@weft/protocol';
import { z } from 'zod';
import { readJson, writeJson } from '../store/files.ts';
import { hashPassword, NO_PASSWORD, passwordFits, passwordHashSchema } from './password.ts';

const accountEntrySchema = z.object({
  name: accountNameSchema,
  role: roleSchema,
  createdAt: z.iso.datetime(),
  password: passwordHashSchema,
});
export type AccountEntry = z.infer<typeof accountEntrySchema>;

const fileSchema = z.object({ accounts: z.array(accountEntrySchema).max(1000) });
const MOST_ACCOUNTS = 1000;

export class Accounts {
  readonly #path: string;
  readonly #now: () => Date;
  readonly #accounts: Map<string, AccountEntry>;

  /** Throws ServerError 'data-dir-corrupt'. */
  constructor(dataDir: string, now: () => Date) {
    this.#path = join(dataDir, 'accounts.json');
    this.#now = now;
    const kept = readJson(this.#path, fileSchema)?.accounts ?? [];
    this.#accounts = new Map(kept.map((account) => [account.name, account]));
  }

  all(): AccountEntry[] {
    return [...this.#accounts.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  find(name: string): AccountEntry | undefined {
    return this.#accounts.get(name);
  }

  /** Throws ProtocolError 'unknown-account'. */
  get(name: string): AccountEntry {
    const account = this.#accounts.get(name);
    if (!account)
      throw new ProtocolError('unknown-account', `There is no account "${name}". List them to see which are.`);
    return account;
  }

  /** Throws ProtocolError 'account-exists'. */
  async add(name: string, role: Role, password: string): Promise<AccountEntry> {
    const refuseKnown = () => {
      if (!this.#accounts.has(name)) return;
      throw new ProtocolError(
        'account-exists',
        `There is an account "${name}" already. Change it, or choose another name.`,
      );
    };
    refuseKnown();
    if (this.#accounts.size >= MOST_ACCOUNTS) {
      throw new ProtocolError('storage-full', `The server keeps ${MOST_ACCOUNTS} accounts; remove some first.`);
    }
    const entry = { name, role, createdAt: this.#now().toISOString(), password: await hashPassword(password) };
    // Hashing took time, in which another may have had the same wish.
    refuseKnown();
    return this.#keep(entry);
  }

  remove(name: string): void {
    this.get(name);
    const rest = new Map(this.#accounts);
    rest.delete(name);
    this.#write(rest);
  }

  setRole(name: string, role: Role): AccountEntry {
    return this.#keep({ ...this.get(name), role });
  }

  async setPassword(name: string, password: string): Promise<AccountEntry> {
    this.get(name);
    const hash = await hashPassword(password);
    return this.#keep({ ...this.get(name), password: hash });
  }

  /** The account whose name and password these are, or null; takes as long when there is no such account. */
  async verify(name: string, password: string): Promise<AccountEntry | null> {
    const account = this.#accounts.get(name);
    const fits = await passwordFits(password, account?.password ?? NO_PASSWORD);
    // It may have been removed, or its password changed, meanwhile.
    return fits && account !== undefined && this.#accounts.get(name)?.password === account.password ? account : null;
  }

  #keep(entry: AccountEntry): AccountEntry {
    this.#write(new Map(this.#accounts).set(entry.name, entry));
    return entry;
  }

  /** On disk first: what is answered must survive a kill. */
  #write(next: Map<string, AccountEntry>): void {
    writeJson(this.#path, { accounts: [...next.values()] }, { mode: 0o600 });
    this.#accounts.clear();
    for (const [name, entry] of next) this.#accounts.set(name, entry);
  }
}
