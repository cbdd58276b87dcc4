// The certificate of `--https`: made here for the names of this machine and renewed before it ends, or the operator's own
// files, read again when they change. A self-signed one keeps listeners out; that it is this server, its fingerprint shows.
import { createHash, createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { isIP } from 'node:net';
import { hostname, networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { createSecureContext } from 'node:tls';
import { generate } from 'selfsigned';
import { z } from 'zod';
import { messageOf, ServerError } from '../errors.ts';
import { readJson, writeJson } from '../store/files.ts';

export interface KeyAndCertificate {
  readonly key: string;
  readonly cert: string;
}

export interface CertificateFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

const LIFE_DAYS = 365;
const RENEW_DAYS = 30;
const DAY_MS = 86_400_000;

const fileSchema = z.object({ key: z.string(), cert: z.string() });

/** SHA-256 of the certificate as browsers show it: pairs of hexadecimal digits. */
export const fingerprintOf = (cert: string): string => new X509Certificate(cert).fingerprint256;

/** Names and addresses this machine is reached by, for a server that listens on `host`. */
export function namesOf(host: string, publicUrl?: string): string[] {
  const everywhere = host === '0.0.0.0' || host === '::';
  const addresses = Object.values(networkInterfaces()).flatMap((each) =>
    (each ?? []).map(({ address }) => address.replace(/%.*$/, '')),
  );
  const names = ['localhost', '127.0.0.1', '::1', ...(everywhere ? [hostname().toLowerCase(), ...addresses] : [host])];
  if (publicUrl !== undefined) names.push(new URL(publicUrl).hostname.replace(/^\[|\]$/g, ''));
  return [...new Set(names)].sort();
}

const isUsable = (cert: X509Certificate, names: readonly string[], now: Date): boolean =>
  Date.parse(cert.validTo) - now.getTime() > RENEW_DAYS * DAY_MS &&
  Date.parse(cert.validFrom) <= now.getTime() &&
  names.every((name) => (isIP(name) ? cert.checkIP(name) : cert.checkHost(name)) !== undefined);

/** The data folder's certificate, made or made anew when it does not name `names` or ends within 30 days. */
export async function ownCertificate(dataDir: string, names: readonly string[], now: Date): Promise<KeyAndCertificate> {
  const path = join(dataDir, 'tls.json');
  const kept = readJson(path, fileSchema);
  if (kept && isUsable(new X509Certificate(kept.cert), names, now)) return kept;
  const made = await generate([{ name: 'commonName', value: names.find((name) => !isIP(name)) ?? 'weft' }], {
    keyType: 'ec',
    curve: 'P-256',
    algorithm: 'sha256',
    notBeforeDate: new Date(now.getTime() - DAY_MS),
    notAfterDate: new Date(now.getTime() + LIFE_DAYS * DAY_MS),
    extensions: [
      { name: 'basicConstraints', cA: false, critical: true },
      { name: 'keyUsage', digitalSignature: true, critical: true },
      { name: 'extKeyUsage', serverAuth: true },
      {
        name: 'subjectAltName',
        altNames: names.map((name) =>
          isIP(name) ? { type: 7 as const, ip: name } : { type: 2 as const, value: name },
        ),
      },
    ],
  });
  const pair = { key: made.private, cert: made.cert };
  writeJson(path, pair, { mode: 0o600 });
  return pair;
}

/** The operator's own files. Throws ServerError 'bad-certificate' that names what is wrong with them. */
export function readCertificate({ certFile, keyFile }: CertificateFiles, now: Date): KeyAndCertificate {
  try {
    const pair = { key: readFileSync(keyFile, 'utf8'), cert: readFileSync(certFile, 'utf8') };
    const certificate = new X509Certificate(pair.cert);
    if (!certificate.checkPrivateKey(createPrivateKey(pair.key))) throw new Error('The key is not the certificate’s.');
    if (Date.parse(certificate.validTo) <= now.getTime())
      throw new Error(`The certificate ended at ${certificate.validTo}.`);
    createSecureContext(pair);
    return pair;
  } catch (cause) {
    throw new ServerError('bad-certificate', `${certFile} with ${keyFile} cannot be used: ${messageOf(cause)}`, {
      cause,
    });
  }
}

/** Changes when the files do. */
export function stampOf({ certFile, keyFile }: CertificateFiles): string {
  const hash = createHash('sha256');
  for (const file of [certFile, keyFile]) {
    const { mtimeMs, size, ino } = statSync(file);
    hash.update(`${file} ${mtimeMs} ${size} ${ino}\n`);
  }
  return hash.digest('hex');
}
