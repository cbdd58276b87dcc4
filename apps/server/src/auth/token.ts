// The admin token: 256 random bits, shown once, kept as a hash. A plain SHA-256 is enough for a secret that nobody chose.
// It acts as an owner, so that a fresh server has one, and can be made anew when it is lost.
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { join } from 'node:path';
import { z } from 'zod';
import { readJson, writeJson } from '../store/files.ts';

const tokenFileSchema = z.object({ adminTokenSha256: z.string().length(64), createdAt: z.iso.datetime() });

const digest = (token: string): Buffer => createHash('sha256').update(token, 'utf8').digest();

export class AdminToken {
  readonly #path: string;
  readonly #now: () => Date;
  readonly #given: Buffer | null;
  #kept: Buffer | null;
  /** The token when it was made at this opening, to be shown once; else null. */
  readonly newToken: string | null;

  /** Loads the token's hash of a data folder, or makes a token. `given` is accepted besides; with it, none is made. */
  constructor(dataDir: string, now: () => Date, given?: string) {
    this.#path = join(dataDir, 'admin.json');
    this.#now = now;
    this.#given = given === undefined ? null : digest(given);
    const kept = readJson(this.#path, tokenFileSchema);
    this.#kept = kept ? Buffer.from(kept.adminTokenSha256, 'hex') : null;
    this.newToken = kept || given !== undefined ? null : this.renew();
  }

  /** Takes the same time for any wrong token. */
  accepts(token: string): boolean {
    const offered = digest(token);
    return [this.#kept, this.#given].map((hash) => hash !== null && timingSafeEqual(hash, offered)).includes(true);
  }

  /** A new token in the place of the folder's; the one before is worth nothing from now on. */
  renew(): string {
    const token = randomBytes(32).toString('base64url');
    const hash = digest(token);
    writeJson(
      this.#path,
      { adminTokenSha256: hash.toString('hex'), createdAt: this.#now().toISOString() },
      { mode: 0o600 },
    );
    this.#kept = hash;
    return token;
  }
}
