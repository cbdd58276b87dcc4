// nginx with the configuration that docs/operations.md gives operators, word for word but for ports, upstream and the certificate's
// path, so that the page cannot rot. In front of a server on this machine, in a folder of its own, without root.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const PAGE = join(import.meta.dirname, '..', '..', '..', 'docs', 'operations.md');

const CANDIDATES = ['nginx', '/usr/sbin/nginx'];
/** Command of nginx on this machine, or null. */
export const findNginx = (): string | null =>
  CANDIDATES.find((command) => spawnSync(command, ['-v'], { stdio: 'ignore' }).status === 0) ?? null;

/** The page's block of code that begins with this path in a comment. */
export function configurationOf(path: string): string {
  const blocks = readFileSync(PAGE, 'utf8').matchAll(/^```nginx\n([\s\S]*?)^```$/gm);
  const found = [...blocks].map(([, text = '']) => text).find((text) => text.startsWith(`# ${path}\n`));
  if (found === undefined) throw new Error(`docs/operations.md has no nginx block for ${path}.`);
  return found;
}

/** `text` with `from` replaced everywhere; the page and this file must agree on what there is to replace. */
function replaced(text: string, from: string | RegExp, to: string): string {
  const after = text.replaceAll(from, to);
  if (after === text) throw new Error(`The nginx configuration of docs/operations.md no longer holds ${String(from)}.`);
  return after;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (address === null || typeof address === 'string') throw new Error('A TCP server has a port.');
  return address.port;
}

export class Nginx {
  /** https://localhost:… */
  url = '';
  /** http://localhost:…, which only redirects. */
  plainUrl = '';
  readonly #command: string;
  readonly #folder = mkdtempSync(join(tmpdir(), 'weft-nginx-'));
  #child: ChildProcess | null = null;

  constructor(command: string) {
    this.#command = command;
  }

  /** PEM of the self-signed certificate. */
  get certificate(): string {
    return join(this.#folder, 'fullchain.pem');
  }

  accessLog(): string {
    return readFileSync(join(this.#folder, 'access.log'), 'utf8');
  }

  /** @param upstream the server's port */
  async start(upstream: number): Promise<void> {
    const folder = this.#folder;
    const key = join(folder, 'privkey.pem');
    execFileSync(
      'openssl',
      [
        ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
        ...['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-keyout', key],
        ...['-out', this.certificate],
      ],
      { stdio: 'ignore' },
    );
    const [secure, plain] = [await freePort(), await freePort()];
    let site = configurationOf('/etc/nginx/conf.d/weft.conf');
    site = replaced(site, 'server 127.0.0.1:8080;', `server 127.0.0.1:${upstream};`);
    site = replaced(site, 'listen 80;', `listen 127.0.0.1:${plain};`);
    site = replaced(site, 'listen 443 ssl', `listen 127.0.0.1:${secure} ssl`);
    // No IPv6 where the machine may have none.
    site = replaced(site, /^ *listen \[::\].*\n/gm, '');
    site = replaced(site, '/etc/nginx/weft/', `${folder}/`);
    const scratch = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
    for (const name of scratch) mkdirSync(join(folder, name));
    const configuration = [
      'daemon off;',
      // Started by root it would give its workers to another user, who may not write here.
      ...(process.getuid?.() === 0 ? ['user root;'] : []),
      `pid ${folder}/nginx.pid;`,
      `error_log ${folder}/error.log;`,
      'events {}',
      'http {',
      `access_log ${folder}/access.log;`,
      ...scratch.map((name) => `${name}_temp_path ${folder}/${name};`),
      site,
      '}',
    ].join('\n');
    const path = join(folder, 'nginx.conf');
    writeFileSync(path, configuration);
    const child = spawn(this.#command, ['-p', folder, '-c', path], { stdio: 'inherit' });
    this.#child = child;
    this.url = `https://localhost:${secure}`;
    this.plainUrl = `http://localhost:${plain}`;
    for (let attempt = 0; ; attempt += 1) {
      if (child.exitCode !== null) throw new Error(`nginx ended with ${child.exitCode}.`);
      const answer = await fetch(this.plainUrl, { redirect: 'manual' }).catch((error: unknown) => error);
      if (answer instanceof Response) return;
      if (attempt > 100) throw new Error('nginx did not begin to listen.', { cause: answer });
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child && child.exitCode === null) {
      await new Promise<void>((resolve) => {
        child.once('exit', () => resolve());
        child.kill('SIGTERM');
      });
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
