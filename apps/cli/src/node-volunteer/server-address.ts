// The address a volunteer is given: a server's, or an invite link that names a run.
import { isIP } from 'node:net';
import { connect } from 'node:tls';
import { CommandError, UsageError } from '../command.ts';

export interface ServerAddress {
  /** Such as `http://localhost:7070`, without a slash at the end. */
  readonly origin: string;
  /** The run an invite link names, or null. */
  readonly runId: string | null;
  /** The invite a link carries in its fragment, or null. */
  readonly invite: string | null;
}

/** Reads `http://host:port`, `host:port` or an invite link (`…/?run=ID#invite=…`). Throws UsageError. */
export function parseServerAddress(text: string): ServerAddress {
  const withScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`;
  let url: URL;
  try {
    url = new URL(withScheme);
  } catch {
    throw new UsageError(`"${text}" is no address. Write it as http://host:port, or paste the invite link.`);
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new UsageError(`"${text}" is not an http or https address.`);
  }
  return {
    origin: url.origin,
    runId: url.searchParams.get('run'),
    invite: new URLSearchParams(url.hash.slice(1)).get('invite'),
  };
}

/** Longest time the look at a certificate may take, in milliseconds. */
const LOOK_MS = 10_000;

/**
 * Looks at the certificate of an https server once, since a socket that is refused for it only says that it could not connect.
 * Rejects with CommandError 'untrusted-certificate'. A server that cannot be reached at all is no matter of this.
 */
export async function checkCertificate(origin: string): Promise<void> {
  const { protocol, hostname, port } = new URL(origin);
  if (protocol !== 'https:' || process.env.NODE_TLS_REJECT_UNAUTHORIZED === '0') return;
  const host = hostname.replace(/^\[|\]$/g, '');
  const fault = await new Promise<string | null>((resolve) => {
    const socket = connect({
      host,
      ...(isIP(host) === 0 ? { servername: host } : {}),
      port: Number(port || 443),
      rejectUnauthorized: false,
    });
    const end = (found: string | null) => {
      socket.destroy();
      resolve(found);
    };
    socket.setTimeout(LOOK_MS, () => end(null));
    socket.on('error', () => end(null));
    socket.on('secureConnect', () => {
      const { authorized, authorizationError } = socket;
      end(authorized ? null : String(authorizationError));
    });
  });
  if (fault === null) return;
  throw new CommandError(
    'untrusted-certificate',
    `The certificate of ${origin} is not trusted (${fault}). If it is the server's own, ask its operator for the file and set NODE_EXTRA_CA_CERTS=FILE.`,
  );
}
