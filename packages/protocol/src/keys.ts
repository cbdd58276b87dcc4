// Public keys: a volunteer's, one a run, and the server's own, with which it signs receipts. Both are ECDSA on P-256, since
// every WebCrypto has it and not every one has Ed25519.
import { z } from 'zod';
import { hexOf, sha256Of, utf8 } from './bytes.ts';
import { canonicalJson, idSchema } from './primitives.ts';

/** Public half of an ECDSA P-256 key, as a JWK. */
export const publicKeySchema = z.object({
  kty: z.literal('EC'),
  crv: z.literal('P-256'),
  x: z.string().length(43),
  y: z.string().length(43),
});
export type PublicKey = z.infer<typeof publicKeySchema>;

/** What a server signs receipts and round records with: GET /api/key. */
export const receiptKeySchema = z.object({ keyId: idSchema, publicKey: publicKeySchema });
export type ReceiptKey = z.infer<typeof receiptKeySchema>;

/** The first 96 bits of the SHA-256 of the key's canonical JSON, in hexadecimal. */
export async function keyIdOf({ kty, crv, x, y }: PublicKey): Promise<string> {
  return hexOf(await sha256Of(utf8(canonicalJson({ kty, crv, x, y })))).slice(0, 24);
}

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256' } as const;

/** Whether `signature` (P1363 r‖s, base64url) is that key's over the UTF-8 bytes of `text`, with SHA-256. */
export async function isSignedBy(publicKey: PublicKey, text: string, signature: string): Promise<boolean> {
  if (!/^[A-Za-z0-9_-]{86}$/.test(signature)) return false;
  const binary = atob(signature.replaceAll('-', '+').replaceAll('_', '/'));
  const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
  try {
    const key = await crypto.subtle.importKey('jwk', { ...publicKey }, ALGORITHM, false, ['verify']);
    return await crypto.subtle.verify({ name: 'ECDSA', hash: 'SHA-256' }, key, bytes, utf8(text));
  } catch {
    // A point that is not on the curve: nobody can have signed with it.
    return false;
  }
}
