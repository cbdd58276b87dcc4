// Who a volunteer is: the holder of an ECDSA P-256 key, one a run. The id is a hash of the public half, so it needs no
// register, and tells nothing of the same device in another run.
import { createHash, createPublicKey, randomBytes, verify as verifyWithCallback } from 'node:crypto';
import { promisify } from 'node:util';
import { canonicalJson, ProtocolError, type PublicKey } from '@weft/protocol';

/** In libuv's pool: thousands of handshakes must not hold up the event loop. */
const verify = promisify(verifyWithCallback);

/** 256 random bits for the client to sign. */
export const makeChallenge = (): string => randomBytes(32).toString('base64url');

/** The first 96 bits of the key's hash, as hexadecimal digits. */
export function clientIdOf(publicKey: PublicKey): string {
  const { kty, crv, x, y } = publicKey;
  return createHash('sha256').update(canonicalJson({ kty, crv, x, y })).digest('hex').slice(0, 24);
}

/** Rejects with ProtocolError 'bad-signature' unless `signature` (P1363, base64url) signs `weft:<challenge>`. */
export async function checkSignature(publicKey: PublicKey, challenge: string, signature: string): Promise<void> {
  const refuse = (cause?: unknown): never => {
    throw new ProtocolError(
      'bad-signature',
      'The answer to the challenge was not signed by the key of this volunteer. Reload to make a new key.',
      { cause },
    );
  };
  let good = false;
  try {
    const key = createPublicKey({ key: { ...publicKey }, format: 'jwk' });
    const bytes = Buffer.from(signature, 'base64url');
    good = await verify('sha256', Buffer.from(`weft:${challenge}`), { key, dsaEncoding: 'ieee-p1363' }, bytes);
  } catch (cause) {
    refuse(cause);
  }
  if (!good) refuse();
}
