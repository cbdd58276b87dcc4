// How much one address, one client and all of them together may ask of the server. The address is the peer's own, or what a trusted proxy says
// it is; an IPv6 network of 64 bits, which is what one household has, is one address.
import type { IncomingMessage } from 'node:http';
import { isIPv6 } from 'node:net';
import proxyAddr from '@fastify/proxy-addr';
import { ProtocolError } from '@weft/protocol';
import { ServerError } from '../errors.ts';
import { KeyedLimit, perMinute } from './keyed-limit.ts';
import { SIGN_IN_RULES } from './sign-in.ts';

export interface Limits {
  /** Sockets one address may have open. */
  readonly connections: number;
  /** volunteer:hello of one address a minute. */
  readonly hellos: number;
  /** HTTP requests of one address a minute. */
  readonly requests: number;
  /** round:join of one client a minute. */
  readonly joins: number;
  /** Failed sign-ins of one address a minute, and of one account from all addresses. */
  readonly signIns: number;
  /** Sockets of volunteers, from everywhere; needs as many open files. */
  readonly volunteers: number;
  /** Bytes announced by all unfinished uploads together. */
  readonly unfinishedBytes: number;
  /** Unfinished uploads of one client; a further one takes the place of the oldest. */
  readonly unfinishedUploads: number;
}

/** Room for a lecture hall behind one address; far from what would hurt the others. */
export const LIMITS: Limits = {
  connections: 2_000,
  hellos: 3_000,
  requests: 6_000,
  joins: 120,
  signIns: SIGN_IN_RULES.failuresPerAddress,
  volunteers: 15_000,
  unfinishedBytes: 32 * 1024 ** 3,
  unfinishedUploads: 4,
};

/** Tells whether `address`, `hop` proxies away, may name the address before it. */
export type Trust = (address: string, hop: number) => boolean;

/** Proxies by address, network (`10.0.0.0/8`) or name (`loopback`, `linklocal`, `uniquelocal`); none when left out. */
export function trustOf(proxies: readonly string[] | undefined): Trust {
  if (proxies === undefined || proxies.length === 0) return () => false;
  try {
    return proxyAddr.compile([...proxies]);
  } catch (cause) {
    throw new ServerError(
      'bad-option',
      `trustProxy: "${proxies.join(', ')}" is no list of addresses, networks (10.0.0.0/8), loopback, linklocal or uniquelocal.`,
      { cause },
    );
  }
}

/** The peer's address, with an IPv6 one cut to its network of 64 bits. */
export function addressOf(request: IncomingMessage, trust: Trust): string {
  return networkOf(proxyAddr(request, trust) ?? 'unknown');
}

export function networkOf(address: string): string {
  const plain = address.replace(/^::ffff:(?=\d+\.)/, '').replace(/%.*$/, '');
  if (!isIPv6(plain)) return plain;
  const [head = '', tail = ''] = plain.split('::');
  const left = head.split(':').filter(Boolean);
  const right = tail.split(':').filter(Boolean);
  const zeros = plain.includes('::') ? Array<string>(Math.max(0, 8 - left.length - right.length)).fill('0') : [];
  const groups = [...left, ...zeros, ...right].slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16));
  return `${groups.join(':')}::/64`;
}

export class PeerLimits {
  readonly #limits: Limits;
  readonly #open = new Map<string, number>();
  readonly #hellos: KeyedLimit;
  readonly #joins: KeyedLimit;

  /** `now`: monotonic milliseconds. */
  constructor(limits: Limits, now: () => number) {
    this.#limits = limits;
    this.#hellos = new KeyedLimit(perMinute(limits.hellos), now);
    this.#joins = new KeyedLimit(perMinute(limits.joins), now);
  }

  /** Counts a socket; returns a function that takes it off again. Throws ProtocolError 'rate-limited'. */
  connected(address: string): () => void {
    const open = this.#open.get(address) ?? 0;
    if (open >= this.#limits.connections) {
      throw new ProtocolError(
        'rate-limited',
        `${open} connections of your address are open, as many as may be. Close some tabs, or come back later.`,
        { retryAfterMs: 30_000 },
      );
    }
    this.#open.set(address, open + 1);
    let counted = true;
    return () => {
      if (!counted) return;
      counted = false;
      const left = (this.#open.get(address) ?? 1) - 1;
      if (left > 0) this.#open.set(address, left);
      else this.#open.delete(address);
    };
  }

  hello(address: string): void {
    this.#hellos.take(address, 'Too many volunteers said hello from your address');
  }

  join(clientId: string): void {
    this.#joins.take(clientId, 'You asked for a place too often');
  }
}
