// Which pages may talk to the server. A browser names the page's origin where it matters; a program does not, and may. The
// name in Host is checked on loopback, where a foreign name means a foreign page pointed at this machine (DNS rebinding).
import { ProtocolError } from '@weft/protocol';
import { ServerError } from '../errors.ts';

export interface GuardOptions {
  /** Address the server listens on. */
  readonly host: string;
  /** As browsers reach it through a proxy, such as https://weft.example.org. */
  readonly publicUrl?: string;
  /** Further origins whose pages may send requests. */
  readonly allowOrigins?: readonly string[];
}

export interface RequestHeaders {
  readonly host?: string | undefined;
  readonly origin?: string | undefined;
}

const LOOPBACK = /^(localhost|.+\.localhost|127(\.\d{1,3}){3}|\[::1\])$/;
const isLoopback = (host: string): boolean => LOOPBACK.test(host.includes(':') ? `[${host}]` : host);

function urlOption(name: string, text: string): URL {
  let url: URL | null = null;
  try {
    url = new URL(text);
  } catch {
    // Said below, in the words of the option.
  }
  if (url && /^https?:$/.test(url.protocol)) return url;
  throw new ServerError('bad-option', `${name}: "${text}" is no address such as https://weft.example.org.`);
}

/** Host name of a Host header, without its port; null when it is none. */
function hostName(header: string): string | null {
  return /^(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?$/i.exec(header)?.[1]?.toLowerCase() ?? null;
}

export class Guard {
  readonly #checksHost: boolean;
  readonly #hosts: ReadonlySet<string>;
  readonly #origins: ReadonlySet<string>;

  /** Throws ServerError 'bad-option'. */
  constructor({ host, publicUrl, allowOrigins = [] }: GuardOptions) {
    const urls = [
      ...(publicUrl === undefined ? [] : [urlOption('publicUrl', publicUrl)]),
      ...allowOrigins.map((origin) => urlOption('allowOrigins', origin)),
    ];
    this.#checksHost = isLoopback(host);
    this.#hosts = new Set(urls.map((url) => url.hostname.toLowerCase()));
    this.#origins = new Set(urls.map((url) => url.origin));
  }

  /** Throws ProtocolError 'origin-refused' for a host name that is not the server's. For every request. */
  checkHost({ host }: RequestHeaders): void {
    const name = hostName(host ?? '');
    if (name !== null && (!this.#checksHost || isLoopback(name.replace(/^\[|\]$/g, '')) || this.#hosts.has(name)))
      return;
    throw new ProtocolError(
      'origin-refused',
      'The server does not answer to this host name. Its operator can name it with --public-url.',
    );
  }

  /** Throws ProtocolError 'origin-refused' for a page of another origin. For sockets, and requests that change something. */
  checkOrigin({ host, origin }: RequestHeaders): void {
    if (origin === undefined || this.#origins.has(origin)) return;
    // Host as the browser wrote it: a page of this very server, whatever its name.
    if (/^https?:\/\//.test(origin) && host !== undefined && origin.replace(/^https?:\/\//, '') === host.toLowerCase())
      return;
    throw new ProtocolError(
      'origin-refused',
      'This page is not one of the server’s. Its operator can name its origin with --allow-origin.',
    );
  }
}
