// Invites: what a link carries, signed by the server's own key, and what it has let in, on disk. The signature turns a
// forged link away without a look-up; the file beside it holds what must be exact: uses, and whether it was taken back.
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  verify,
} from 'node:crypto';
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type Invite, idSchema, inviteSchema, type inviteWishSchema, ProtocolError } from '@weft/protocol';
import { z } from 'zod';
import { ServerError } from '../errors.ts';
import { readJson, syncFolder, withDisk, writeDurably, writeJson } from '../store/files.ts';

const inviteFileSchema = inviteSchema.omit({ uses: true });
type InviteFile = z.infer<typeof inviteFileSchema>;

/** What the signature covers. Short names: it is part of an address people pass on. */
const claimsSchema = z.object({ i: idSchema, r: idSchema.nullable(), e: z.int() });
const useSchema = z.object({ runId: idSchema, clientId: idSchema, at: z.iso.datetime() });

/** Keeps a signature made here from being one for anything else this key may sign. */
const PURPOSE = Buffer.from('weft-invite:');

const useKey = (runId: string, clientId: string): string => `${runId} ${clientId}`;

export class Invites {
  readonly #folder: string;
  readonly #now: () => Date;
  readonly #key: KeyObject;
  readonly #publicKey: KeyObject;
  readonly #invites = new Map<string, InviteFile>();
  /** Uses by invite. */
  readonly #uses = new Map<string, number>();
  /** The invites by which a client was let into a run. */
  readonly #admitted = new Map<string, string[]>();

  /** Throws ServerError 'data-dir-corrupt'. */
  constructor(dataDir: string, now: () => Date) {
    this.#folder = join(dataDir, 'invites');
    this.#now = now;
    mkdirSync(this.#folder, { recursive: true });
    this.#key = openKey(join(this.#folder, 'key.pem'));
    this.#publicKey = createPublicKey(this.#key);
    for (const name of readdirSync(this.#folder).sort()) {
      if (!name.endsWith('.json')) continue;
      const invite = readJson(join(this.#folder, name), inviteFileSchema);
      if (!invite) continue;
      this.#invites.set(invite.inviteId, invite);
      this.#readUses(invite.inviteId);
    }
  }

  #usesPath(inviteId: string): string {
    return join(this.#folder, `${inviteId}.uses.jsonl`);
  }

  #readUses(inviteId: string): void {
    const path = this.#usesPath(inviteId);
    if (!existsSync(path)) return;
    const text = readFileSync(path, 'utf8');
    const whole = text.lastIndexOf('\n') + 1;
    // A kill in the middle of a line: that use was never answered, and the next must not be glued to it.
    if (whole < text.length) truncateSync(path, Buffer.byteLength(text.slice(0, whole)));
    for (const line of text.slice(0, whole).split('\n').filter(Boolean)) {
      let use: z.infer<typeof useSchema>;
      try {
        use = useSchema.parse(JSON.parse(line));
      } catch (cause) {
        throw new ServerError(
          'data-dir-corrupt',
          `${path} holds a line that is no use of an invite. Restore it from a backup.`,
          {
            cause,
          },
        );
      }
      this.#count(inviteId, use.runId, use.clientId);
    }
  }

  #count(inviteId: string, runId: string, clientId: string): void {
    this.#uses.set(inviteId, (this.#uses.get(inviteId) ?? 0) + 1);
    const key = useKey(runId, clientId);
    this.#admitted.set(key, [...(this.#admitted.get(key) ?? []), inviteId]);
  }

  #shown(file: InviteFile): Invite {
    return { ...file, uses: this.#uses.get(file.inviteId) ?? 0 };
  }

  /** Newest first. */
  all(): Invite[] {
    const invites = [...this.#invites.values()].map((file) => this.#shown(file));
    return invites.sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1));
  }

  create(wish: z.output<typeof inviteWishSchema>, createdBy: string): { invite: Invite; token: string } {
    const now = this.#now();
    const file: InviteFile = {
      inviteId: randomBytes(9).toString('hex'),
      runId: wish.runId,
      label: wish.label,
      createdAt: now.toISOString(),
      createdBy,
      expiresAt: new Date(now.getTime() + wish.expiresInMs).toISOString(),
      maxUses: wish.maxUses,
      revokedAt: null,
    };
    this.#write(file);
    const claims = Buffer.from(
      JSON.stringify({ i: file.inviteId, r: file.runId, e: Date.parse(file.expiresAt) } satisfies z.infer<
        typeof claimsSchema
      >),
    );
    const signature = sign(null, Buffer.concat([PURPOSE, claims]), this.#key);
    return { invite: this.#shown(file), token: `${claims.toString('base64url')}.${signature.toString('base64url')}` };
  }

  /** Whom it let in comes in no more. Throws ProtocolError 'not-found'. */
  revoke(inviteId: string): Invite {
    const file = this.#invites.get(inviteId);
    if (!file) throw new ProtocolError('not-found', 'There is no invite of this id. List them to see which are.');
    if (file.revokedAt === null) this.#write({ ...file, revokedAt: this.#now().toISOString() });
    return this.#shown(this.#invites.get(inviteId) ?? file);
  }

  #write(file: InviteFile): void {
    writeJson(join(this.#folder, `${file.inviteId}.json`), file);
    this.#invites.set(file.inviteId, file);
  }

  /**
   * Lets `clientId` into a run of invited volunteers, by `token` or by what it was let in by before. A first admission counts
   * as a use, which is on disk when this returns; nothing comes between. Whoever was in once may come to take work back or be
   * forgotten, also when its invite was taken back. Throws the ProtocolError that says why not.
   */
  admit(runId: string, clientId: string, token: string | null): void {
    if (this.#isIn(runId, clientId)) return;
    let inviteId: string;
    try {
      inviteId = this.#decide(runId, token);
    } catch (error) {
      if (error instanceof ProtocolError && this.#admitted.has(useKey(runId, clientId))) return;
      throw error;
    }
    const line = `${JSON.stringify({ runId, clientId, at: this.#now().toISOString() })}\n`;
    appendDurably(this.#usesPath(inviteId), line);
    this.#count(inviteId, runId, clientId);
  }

  /** Whether an admitted client may still take part. Throws ProtocolError 'invite-revoked'. */
  check(runId: string, clientId: string): void {
    if (this.#isIn(runId, clientId)) return;
    throw new ProtocolError(
      'invite-revoked',
      'The invite you came with was taken back. Ask the run’s operator for another.',
    );
  }

  #isIn(runId: string, clientId: string): boolean {
    const by = this.#admitted.get(useKey(runId, clientId)) ?? [];
    return by.some((inviteId) => this.#invites.get(inviteId)?.revokedAt === null);
  }

  /** Takes a client's name off its uses; that there were so many stays. */
  forget(runId: string, clientId: string): void {
    const key = useKey(runId, clientId);
    for (const inviteId of new Set(this.#admitted.get(key))) {
      const path = this.#usesPath(inviteId);
      // A name of its own, so that the count of keys stays what it was.
      const gone = `forgotten-${randomBytes(9).toString('hex')}`;
      const lines = readFileSync(path, 'utf8').split('\n').filter(Boolean);
      const kept = lines.map((line) => {
        const use = useSchema.parse(JSON.parse(line));
        return use.runId === runId && use.clientId === clientId ? JSON.stringify({ ...use, clientId: gone }) : line;
      });
      writeDurably(path, `${kept.join('\n')}\n`, { mode: 0o600 });
    }
    this.#admitted.delete(key);
  }

  /** The invite that a use of is due. */
  #decide(runId: string, token: string | null): string {
    if (token === null) {
      throw new ProtocolError(
        'invite-required',
        'This run takes invited volunteers only. Open it by the link its operator gives you.',
      );
    }
    const invite = this.#verify(token, runId);
    if (invite.revokedAt !== null) {
      throw new ProtocolError('invite-revoked', 'This invite was taken back. Ask the run’s operator for another.');
    }
    if (Date.parse(invite.expiresAt) <= this.#now().getTime()) {
      throw new ProtocolError(
        'invite-expired',
        `This invite was good until ${invite.expiresAt}. Ask the run’s operator for a new one.`,
      );
    }
    if ((this.#uses.get(invite.inviteId) ?? 0) >= invite.maxUses) {
      throw new ProtocolError(
        'invite-used-up',
        `This invite has let in ${invite.maxUses} ${invite.maxUses === 1 ? 'volunteer' : 'volunteers'}, as many as it may. Ask the run’s operator for another.`,
      );
    }
    return invite.inviteId;
  }

  #verify(token: string, runId: string): InviteFile {
    const refuse = (why: string, cause?: unknown): never => {
      throw new ProtocolError(
        'invite-invalid',
        `${why} Copy the whole link again, or ask the run’s operator for another.`,
        { cause },
      );
    };
    const [head = '', tail = '', ...rest] = token.split('.');
    const claims = Buffer.from(head, 'base64url');
    const signature = Buffer.from(tail, 'base64url');
    const good =
      rest.length === 0 &&
      signature.length === 64 &&
      verify(null, Buffer.concat([PURPOSE, claims]), this.#publicKey, signature);
    if (!good) return refuse('This invite is damaged or not from this server.');
    let parsed: z.infer<typeof claimsSchema>;
    try {
      parsed = claimsSchema.parse(JSON.parse(claims.toString('utf8')));
    } catch (cause) {
      return refuse('This invite is of a form this server does not know.', cause);
    }
    const invite = this.#invites.get(parsed.i);
    if (!invite) return refuse('The server keeps no such invite any more.');
    if (invite.runId !== null && invite.runId !== runId) return refuse('This invite is for another run.');
    return invite;
  }
}

/** The server's Ed25519 key, made when there is none. Losing it makes all links worthless, and nothing else. */
function openKey(path: string): KeyObject {
  if (!existsSync(path)) {
    const { privateKey } = generateKeyPairSync('ed25519');
    writeDurably(path, privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), { mode: 0o600 });
  }
  try {
    return createPrivateKey(readFileSync(path, 'utf8'));
  } catch (cause) {
    throw new ServerError(
      'data-dir-corrupt',
      `${path} is no private key. Restore it from a backup, or remove it: invites made so far are then worthless.`,
      { cause },
    );
  }
}

/** Adds a line that is on disk when this returns; a line that could not be added whole is taken off again. */
function appendDurably(path: string, line: string): void {
  withDisk(path, () => {
    const isNew = !existsSync(path);
    const handle = openSync(path, 'a', 0o600);
    const { size } = fstatSync(handle);
    try {
      writeFileSync(handle, line);
      fsyncSync(handle);
    } catch (error) {
      ftruncateSync(handle, size);
      throw error;
    } finally {
      closeSync(handle);
    }
    if (isNew) syncFolder(join(path, '..'));
  });
}
