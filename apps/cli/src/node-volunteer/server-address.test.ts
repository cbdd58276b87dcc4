import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { generate } from 'selfsigned';
import { describe, expect, it } from 'vitest';
import { checkCertificate, parseServerAddress } from './server-address.ts';

describe('parseServerAddress', () => {
  it('reads addresses with and without a scheme, and invite links', () => {
    expect(parseServerAddress('localhost:7070')).toEqual({
      origin: 'http://localhost:7070',
      runId: null,
      invite: null,
    });
    expect(parseServerAddress('https://weft.example/?run=rank-mix#invite=abc')).toEqual({
      origin: 'https://weft.example',
      runId: 'rank-mix',
      invite: 'abc',
    });
  });

  it('names what is no address', () => {
    expect(() => parseServerAddress('ftp://weft.example')).toThrow('not an http or https address');
    expect(() => parseServerAddress('http://')).toThrow('is no address');
  });
});

describe('checkCertificate', () => {
  it('names a certificate nobody vouches for', async () => {
    const pair = await generate([{ name: 'commonName', value: 'localhost' }], { keyType: 'ec' });
    const server = createServer({ key: pair.private, cert: pair.cert });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    await expect(checkCertificate(`https://127.0.0.1:${port}`)).rejects.toMatchObject({
      code: 'untrusted-certificate',
      message: expect.stringContaining('NODE_EXTRA_CA_CERTS=FILE'),
    });
    await new Promise((resolve) => server.close(resolve));
  });

  it('leaves to others whether a server is there', async () => {
    await expect(checkCertificate('https://127.0.0.1:1')).resolves.toBeUndefined();
    await expect(checkCertificate('http://127.0.0.1:1')).resolves.toBeUndefined();
  });
});
