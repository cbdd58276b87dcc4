// Signing in by name and password, and what slows down guessing: failures are counted by address and by account, every
// failure is answered late and alike, whether the account exists or not, and few passwords are hashed at once.
import { ProtocolError } from '@weft/protocol';
import type { AccountEntry, Accounts } from './accounts.ts';
import { KeyedLimit, perMinute } from './keyed-limit.ts';

export interface SignInRules {
  /** Failures of one address a minute. */
  readonly failuresPerAddress: number;
  /** Failures of one account a minute, from all addresses. */
  readonly failuresPerAccount: number;
  /** How long a failure is held back, in milliseconds. */
  readonly failureMs: number;
}

export const SIGN_IN_RULES: SignInRules = { failuresPerAddress: 10, failuresPerAccount: 10, failureMs: 500 };

/** Hashing takes 32 MiB each. */
const HASHED_AT_ONCE = 4;

export class SignIn {
  readonly #accounts: Accounts;
  readonly #rules: SignInRules;
  readonly #addresses: KeyedLimit;
  readonly #names: KeyedLimit;
  #hashing = 0;

  constructor(accounts: Accounts, rules: SignInRules, monotonic: () => number) {
    this.#accounts = accounts;
    this.#rules = rules;
    this.#addresses = new KeyedLimit(perMinute(rules.failuresPerAddress), monotonic);
    this.#names = new KeyedLimit(perMinute(rules.failuresPerAccount), monotonic);
  }

  /** Throws ProtocolError 'rate-limited' with the time to wait, or 'unauthorised', the same for every wrong pair. */
  async verify(name: string, password: string, address: string): Promise<AccountEntry> {
    if (this.#hashing >= HASHED_AT_ONCE) {
      throw new ProtocolError('rate-limited', 'Too many are signing in at once; try again in a second.', {
        retryAfterMs: 1_000,
      });
    }
    // Counted before the password is looked at, so that many tries at once are many tries. A success takes it back.
    const key = name.slice(0, 64);
    this.#addresses.take(address, 'Too many failed sign-ins from this address');
    this.#names.take(key, 'Too many failed sign-ins to this account');
    this.#hashing += 1;
    let account: AccountEntry | null;
    try {
      account = await this.#accounts.verify(key, password);
    } finally {
      this.#hashing -= 1;
    }
    if (account) {
      this.#addresses.giveBack(address);
      this.#names.giveBack(key);
      return account;
    }
    await new Promise((resolve) => setTimeout(resolve, this.#rules.failureMs));
    throw new ProtocolError(
      'unauthorised',
      'Name or password is wrong. An owner can set a new password: weft admin set-password.',
    );
  }
}
