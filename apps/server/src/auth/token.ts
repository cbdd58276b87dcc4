// The admin's token: 256 random bits, shown once, kept as a hash. A plain SHA-256 is enough for a secret that nobody chose.
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { join } from 'node:path';
import { ProtocolError } from '@weft/protocol';
import { z } from 'zod';
import { readJson, writeJson } from '../store/files.ts';

const tokenFileSchema = z.object({ adminTokenSha256: z.string().length(64), createdAt: z.iso.datetime() });

const digest = (token: string): Buffer => createHash('sha256').update(token, 'utf8').digest();

export interface AdminAuth {
  /** The token when it was made just now, to be shown once; else null. */
  readonly newToken: string | null;
  /** Whether `token` is the admin's. Takes the same time for any wrong token. */
  accepts(token: string): boolean;
  /** Throws ProtocolError 'unauthorised' unless {@link accepts}. */
  check(token: string): void;
}

/** Loads the token's hash of a data folder, or makes a token. `given` is accepted besides. */
export function openAdminAuth(dataDir: string, now: Date, given?: string): AdminAuth {
  const path = join(dataDir, 'admin.json');
  const kept = readJson(path, tokenFileSchema);
  let newToken: string | null = null;
  const hashes: Buffer[] = [];
  if (kept) hashes.push(Buffer.from(kept.adminTokenSha256, 'hex'));
  else if (given === undefined) {
    newToken = randomBytes(32).toString('base64url');
    hashes.push(digest(newToken));
    writeJson(path, { adminTokenSha256: digest(newToken).toString('hex'), createdAt: now.toISOString() });
  }
  if (given !== undefined) hashes.push(digest(given));
  const accepts = (token: string): boolean => {
    const offered = digest(token);
    return hashes.map((hash) => timingSafeEqual(hash, offered)).includes(true);
  };
  return {
    newToken,
    accepts,
    check(token) {
      if (accepts(token)) return;
      throw new ProtocolError(
        'unauthorised',
        'This admin token is not the server’s. It was printed when the server first started with its data folder.',
      );
    },
  };
}
