// The address a volunteer is given: a server's, or an invite link that names a run.
import { UsageError } from '../command.ts';

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
