// The volunteer's ECDSA P-256 key through WebCrypto, the same in a tab and in Node. Where it is kept between visits is the
// host's affair: a tab keeps the unextractable pair in IndexedDB, the command line a JWK in a file.
import { publicKeySchema } from '@weft/protocol';
import { base64url, utf8 } from './bytes.ts';
import type { Identities, Identity } from './ports.ts';

const KEY = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const SIGNATURE = { name: 'ECDSA', hash: 'SHA-256' } as const;

/** A new key pair. `extractable` false keeps the private half inside the host for good. */
export function generateKeys(extractable: boolean): Promise<CryptoKeyPair> {
  return crypto.subtle.generateKey(KEY, extractable, ['sign', 'verify']);
}

/** The identity a key pair of {@link generateKeys} stands for. */
export async function identityOf(keys: CryptoKeyPair): Promise<Identity> {
  const { kty, crv, x, y } = await crypto.subtle.exportKey('jwk', keys.publicKey);
  return {
    publicKey: publicKeySchema.parse({ kty, crv, x, y }),
    async sign(text) {
      return base64url(new Uint8Array(await crypto.subtle.sign(SIGNATURE, keys.privateKey, utf8(text))));
    },
  };
}

/** The same key for every run: for a client that takes part in one only. */
export const sameIdentity = (identity: Identity): Identities => ({ of: () => Promise.resolve(identity) });

/** The private JWK of an extractable pair, for a file. */
export function exportKeys(keys: CryptoKeyPair): Promise<JsonWebKey> {
  return crypto.subtle.exportKey('jwk', keys.privateKey);
}

/** A pair from what {@link exportKeys} gave; the private half is not extractable again. Rejects for anything else. */
export async function importKeys(jwk: JsonWebKey): Promise<CryptoKeyPair> {
  const { d: _private, key_ops: _operations, ...publicHalf } = jwk;
  const [privateKey, publicKey] = await Promise.all([
    crypto.subtle.importKey('jwk', jwk, KEY, false, ['sign']),
    crypto.subtle.importKey('jwk', publicHalf, KEY, true, ['verify']),
  ]);
  return { privateKey, publicKey };
}
