// Who may not take part: by client id, and where the operator asks for it by network address. One file for the server, written
// before anybody is told. A ban is no wall, since keys are free to make; it stops the client that does harm now.
import { join } from 'node:path';
import { type Ban, banSchema, ProtocolError } from '@weft/protocol';
import { z } from 'zod';
import { readJson, writeJson } from '../store/files.ts';

const bansFileSchema = z.object({ bans: z.array(banSchema) });

/** Addresses remembered of clients that have been here. */
const ADDRESSES_KEPT = 20_000;

export class Bans {
  readonly #path: string;
  readonly #now: () => Date;
  #bans: readonly Ban[] = [];
  /** The same, to look up at every message. */
  #byClient = new Map<string, Ban>();
  #byAddress = new Map<string, Ban>();
  /** Where clients were last seen, oldest first: kept in memory only. */
  readonly #addresses = new Map<string, string>();

  constructor(dataDir: string, now: () => Date) {
    this.#path = join(dataDir, 'bans.json');
    this.#now = now;
    this.#take(readJson(this.#path, bansFileSchema)?.bans ?? []);
  }

  /** Latest first. */
  all(): Ban[] {
    return [...this.#bans].reverse();
  }

  of(clientId: string): Ban | null {
    return this.#byClient.get(clientId) ?? null;
  }

  /** Notes where a client came from, so that its address can be banned with it. */
  sawAddress(clientId: string, address: string): void {
    this.#addresses.delete(clientId);
    this.#addresses.set(clientId, address);
    if (this.#addresses.size <= ADDRESSES_KEPT) return;
    const [oldest] = this.#addresses.keys();
    if (oldest !== undefined) this.#addresses.delete(oldest);
  }

  forgetAddress(clientId: string): void {
    this.#addresses.delete(clientId);
  }

  /** Durable when this returns; banning again changes the reason. Throws 'unknown-client' where an address is not known. */
  add(wish: { clientId: string; name: string | null; reason: string; address: boolean }): void {
    const { clientId, name, reason } = wish;
    const address = wish.address ? this.#addresses.get(clientId) : null;
    if (address === undefined) {
      throw new ProtocolError(
        'unknown-client',
        'The address of this client is not known; it has not been here since the server started. Ban its key alone.',
      );
    }
    const ban: Ban = { clientId, name, reason, at: this.#now().toISOString(), address };
    this.#write([...this.#bans.filter((other) => other.clientId !== clientId), ban]);
  }

  /** Throws 'unknown-client' where there is no such ban. */
  remove(clientId: string): void {
    if (!this.of(clientId)) throw new ProtocolError('unknown-client', `${clientId} is not banned.`);
    this.#write(this.#bans.filter((ban) => ban.clientId !== clientId));
  }

  #write(bans: readonly Ban[]): void {
    writeJson(this.#path, { bans }, { mode: 0o600 });
    this.#take(bans);
  }

  #take(bans: readonly Ban[]): void {
    this.#bans = bans;
    this.#byClient = new Map(bans.map((ban) => [ban.clientId, ban]));
    this.#byAddress = new Map(bans.flatMap((ban) => (ban.address === null ? [] : [[ban.address, ban]])));
  }

  /** Throws ProtocolError 'banned', with the reason, for a client or address that is. */
  check({ clientId, address }: { readonly clientId: string | null; readonly address: string }): void {
    const ban = (clientId === null ? undefined : this.#byClient.get(clientId)) ?? this.#byAddress.get(address);
    if (ban) throw new ProtocolError('banned', `The operator of this server has banned this device: ${ban.reason}`);
  }
}
