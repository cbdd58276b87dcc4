// Passwords as they are kept: scrypt with a salt of their own, and the cost beside them so that it can be raised later.
// N = 2^15, r = 8, p = 3 is one of OWASP's equal choices (Password Storage Cheat Sheet); it takes 32 MiB.
import { randomBytes, type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto';
import { z } from 'zod';

export const passwordHashSchema = z.object({
  algorithm: z.literal('scrypt'),
  n: z.int().min(1024).max(1_048_576),
  r: z.int().min(1).max(32),
  p: z.int().min(1).max(16),
  salt: z.string().min(22).max(200),
  hash: z.string().min(43).max(200),
});
export type PasswordHash = z.infer<typeof passwordHashSchema>;

const COST = { n: 2 ** 15, r: 8, p: 3 } as const;
const HASH_BYTES = 32;

function derive(password: string, salt: Buffer, { n, r, p }: { n: number; r: number; p: number }): Promise<Buffer> {
  const options: ScryptOptions = { N: n, r, p, maxmem: 256 * n * r };
  return new Promise((resolve, reject) => {
    // NFKC, so that one password typed on two keyboards is one.
    scrypt(password.normalize('NFKC'), salt, HASH_BYTES, options, (error, key) => {
      if (error) reject(error);
      else resolve(key);
    });
  });
}

export async function hashPassword(password: string): Promise<PasswordHash> {
  const salt = randomBytes(16);
  const key = await derive(password, salt, COST);
  return { algorithm: 'scrypt', ...COST, salt: salt.toString('base64url'), hash: key.toString('base64url') };
}

/** Stands in for the hash of an account that does not exist: as much work, and no password fits. */
export const NO_PASSWORD: PasswordHash = {
  algorithm: 'scrypt',
  ...COST,
  salt: Buffer.alloc(16).toString('base64url'),
  hash: Buffer.alloc(HASH_BYTES).toString('base64url'),
};

export async function passwordFits(password: string, kept: PasswordHash): Promise<boolean> {
  const key = await derive(password, Buffer.from(kept.salt, 'base64url'), kept);
  const wanted = Buffer.from(kept.hash, 'base64url');
  return wanted.length === key.length && timingSafeEqual(wanted, key);
}
