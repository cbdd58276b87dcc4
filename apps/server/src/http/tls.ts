// Which certificate a running server shows: opened at the start, looked at again while it runs, swapped without losing a
// connection. A new one that cannot be used is named in the log and the old one stays.
import type { Server } from 'node:https';
import type { Logger } from 'pino';
import {
  type CertificateFiles,
  fingerprintOf,
  type KeyAndCertificate,
  namesOf,
  ownCertificate,
  readCertificate,
  stampOf,
} from './certificate.ts';

export interface TlsOptions {
  readonly dataDir: string;
  readonly host: string;
  readonly publicUrl?: string;
  /** The operator's own; made here when left out. */
  readonly files?: CertificateFiles;
  readonly logger: Logger;
  readonly now: () => Date;
  /** How often files, or the end of our own, are looked at, in milliseconds. */
  readonly lookEveryMs?: number;
}

const LOOK_AT_FILES_MS = 10_000;
const LOOK_AT_OWN_MS = 6 * 3_600_000;

export class Tls {
  readonly #options: TlsOptions;
  #pair: KeyAndCertificate;
  #stamp: string;
  #server: Server | null = null;

  private constructor(options: TlsOptions, pair: KeyAndCertificate, stamp: string) {
    this.#options = options;
    this.#pair = pair;
    this.#stamp = stamp;
  }

  /** Throws ServerError 'bad-certificate'. */
  static async open(options: TlsOptions): Promise<Tls> {
    const stamp = options.files ? stampNow(options.files) : '';
    return new Tls(options, await load(options), stamp);
  }

  get pair(): KeyAndCertificate {
    return this.#pair;
  }

  get fingerprint(): string {
    return fingerprintOf(this.#pair.cert);
  }

  /** Keeps `server`'s certificate fresh. Returns a function that stops it. */
  watch(server: Server): () => void {
    this.#server = server;
    const { files, lookEveryMs = files ? LOOK_AT_FILES_MS : LOOK_AT_OWN_MS } = this.#options;
    const timer = setInterval(() => {
      if (files && stampNow(files) === this.#stamp) return;
      void this.reload();
    }, lookEveryMs);
    timer.unref();
    return () => clearInterval(timer);
  }

  /** Reads or renews the certificate now. Never rejects: what fails is in the log, and the old one stays. */
  async reload(): Promise<void> {
    const { files, logger } = this.#options;
    if (files) this.#stamp = stampNow(files);
    try {
      const pair = await load(this.#options);
      if (pair.cert === this.#pair.cert && pair.key === this.#pair.key) return;
      this.#server?.setSecureContext(pair);
      this.#pair = pair;
      logger.info({ fingerprint: this.fingerprint }, 'a new certificate is in use');
    } catch (error) {
      logger.error({ err: error }, 'the new certificate cannot be used; the old one stays');
    }
  }
}

const load = async ({ dataDir, host, publicUrl, files, now }: TlsOptions): Promise<KeyAndCertificate> =>
  files ? readCertificate(files, now()) : ownCertificate(dataDir, namesOf(host, publicUrl), now());

/** A file that is being replaced may be away for a moment; that it is, is a stamp too. */
function stampNow(files: CertificateFiles): string {
  try {
    return stampOf(files);
  } catch {
    return 'missing';
  }
}
