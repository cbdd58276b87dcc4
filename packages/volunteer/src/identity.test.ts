import { createPublicKey, verify } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { exportKeys, generateKeys, identityOf, importKeys } from './identity.ts';

describe('identity', () => {
  it('signs so that another implementation of ECDSA P-256 agrees', async () => {
    const identity = await identityOf(await generateKeys(false));
    const key = createPublicKey({ key: { ...identity.publicKey }, format: 'jwk' });
    const signature = Buffer.from(await identity.sign('weft:abc'), 'base64url');
    expect(signature).toHaveLength(64);
    expect(verify('sha256', Buffer.from('weft:abc'), { key, dsaEncoding: 'ieee-p1363' }, signature)).toBe(true);
    expect(verify('sha256', Buffer.from('weft:abd'), { key, dsaEncoding: 'ieee-p1363' }, signature)).toBe(false);
  });

  it('keeps an unextractable private half inside', async () => {
    const keys = await generateKeys(false);
    await expect(exportKeys(keys)).rejects.toThrow();
  });

  it('comes back from a file as the same key', async () => {
    const keys = await generateKeys(true);
    const jwk = JSON.parse(JSON.stringify(await exportKeys(keys))) as JsonWebKey;
    const [before, after] = [await identityOf(keys), await identityOf(await importKeys(jwk))];
    expect(after.publicKey).toEqual(before.publicKey);
    const key = createPublicKey({ key: { ...before.publicKey }, format: 'jwk' });
    const signature = Buffer.from(await after.sign('x'), 'base64url');
    expect(verify('sha256', Buffer.from('x'), { key, dsaEncoding: 'ieee-p1363' }, signature)).toBe(true);
  });

  it('refuses what is no key', async () => {
    await expect(importKeys({ kty: 'EC', crv: 'P-256', x: 'no', y: 'no', d: 'no' })).rejects.toThrow();
  });
});
