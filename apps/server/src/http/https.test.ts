// HTTPS as browsers and volunteers meet it: a certificate of the server's own, or the operator's files swapped under way;
// pages, wss and long polling over it.
import { X509Certificate } from 'node:crypto';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { request as httpsRequest } from 'node:https';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { NAMESPACES, PROTOCOL_VERSION, ROUTES } from '@weft/protocol';
import { io } from 'socket.io-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunningServer } from '../index.ts';
import { ADMIN_TOKEN, makeFolders, SETTINGS, startServer } from '../testing/server.ts';
import { fingerprintOf, namesOf, ownCertificate } from './certificate.ts';

const folders = makeFolders();
let server: RunningServer;
const tlsFile = join(folders.dataDir, 'tls.json');
const kept = () => JSON.parse(readFileSync(tlsFile, 'utf8')) as { key: string; cert: string };

const get = (port: number, path: string, ca: string): Promise<{ status: number; body: string }> =>
  new Promise((resolve, reject) => {
    const call = httpsRequest({ host: 'localhost', port, path, ca, agent: false }, (reply) => {
      let body = '';
      reply.on('data', (chunk: Buffer) => {
        body += chunk.toString();
      });
      reply.on('end', () => resolve({ status: reply.statusCode ?? 0, body }));
    });
    call.on('error', reject);
    call.end();
  });

/** Fingerprint of what a new connection is shown. */
const shown = (port: number): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false }, () => {
      resolve(socket.getPeerCertificate().fingerprint256);
      socket.end();
    });
    socket.on('error', reject);
  });

beforeAll(async () => {
  server = await startServer(folders, { https: true });
});

afterAll(async () => {
  await server.close();
  folders.remove();
});

describe('a certificate of the server’s own', () => {
  it('names this machine, is checked by a client that trusts it, and is kept with its key for the server alone', async () => {
    expect(server.url).toBe(`https://127.0.0.1:${server.port}`);
    const { cert } = kept();
    expect((await get(server.port, ROUTES.health, cert)).body).toContain('ok');
    await expect(get(server.port, ROUTES.health, '')).rejects.toMatchObject({ code: /SELF_SIGNED|UNABLE_TO/ });
    const parsed = new X509Certificate(cert);
    expect([parsed.checkHost('localhost'), parsed.checkIP('127.0.0.1'), parsed.checkHost('evil.example')]).toEqual([
      'localhost',
      '127.0.0.1',
      undefined,
    ]);
    expect(server.fingerprint()).toBe(parsed.fingerprint256);
    expect(await shown(server.port)).toBe(parsed.fingerprint256);
    expect(statSync(tlsFile).mode & 0o077).toBe(0);
  });

  it('is the same after a restart, and made anew before it ends or when the names change', async () => {
    const first = server.fingerprint();
    await server.close();
    server = await startServer(folders, { https: true });
    expect(server.fingerprint()).toBe(first);
    const names = namesOf('127.0.0.1');
    const soon = new Date(Date.now() + 336 * 86_400_000);
    const renewed = await ownCertificate(folders.dataDir, names, soon);
    expect(fingerprintOf(renewed.cert)).not.toBe(first);
    const named = await ownCertificate(folders.dataDir, [...names, 'weft.example.org', '192.0.2.7'], soon);
    const parsed = new X509Certificate(named.cert);
    expect([parsed.checkHost('weft.example.org'), parsed.checkIP('192.0.2.7')]).toEqual([
      'weft.example.org',
      '192.0.2.7',
    ]);
    // The running server takes it over when it is told to look.
    await server.close();
    server = await startServer(folders, { https: true, publicUrl: 'https://weft.example.org' });
    expect(await shown(server.port)).toBe(server.fingerprint());
  });
});

describe.each(['websocket', 'polling'] as const)('Socket.IO over it by %s', (transport) => {
  it('carries an admin’s requests', async () => {
    const socket = io(`https://localhost:${server.port}${NAMESPACES.admin}`, {
      transports: [transport],
      upgrade: false,
      forceNew: true,
      auth: { protocolVersion: PROTOCOL_VERSION, token: ADMIN_TOKEN },
      ca: kept().cert,
    });
    const ack: unknown = await socket.timeout(10_000).emitWithAck('admin:create', { ...SETTINGS, name: transport });
    expect(ack).toMatchObject({ ok: true, value: { settings: { name: transport } } });
    expect(socket.io.engine.transport.name).toBe(transport);
    socket.close();
  });
});

describe('the operator’s own files', () => {
  it('are used, read again when asked, and kept when the new ones are of no use', async () => {
    const own = makeFolders();
    const certFile = join(own.root, 'cert.pem');
    const keyFile = join(own.root, 'key.pem');
    const write = async (name: string): Promise<string> => {
      const made = makeFolders();
      const { key, cert } = await ownCertificate(made.root, ['localhost', name], new Date());
      writeFileSync(certFile, cert);
      writeFileSync(keyFile, key);
      made.remove();
      return fingerprintOf(cert);
    };
    const first = await write('one.example');
    const secured = await startServer(own, { https: { certFile, keyFile } });
    expect(await shown(secured.port)).toBe(first);
    const second = await write('two.example');
    await secured.reloadCertificate();
    expect([await shown(secured.port), secured.fingerprint()]).toEqual([second, second]);
    writeFileSync(keyFile, kept().key);
    await secured.reloadCertificate();
    expect(await shown(secured.port)).toBe(second);
    await secured.close();
    await expect(startServer(own, { https: { certFile, keyFile } })).rejects.toMatchObject({ code: 'bad-certificate' });
    own.remove();
  });
});
