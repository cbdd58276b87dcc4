// Invites from outside: who comes in, how often, and what is said to those who do not; over real sockets, kills included.
import { appendFileSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Invite, type InviteWish, PROTOCOL_VERSION } from '@weft/protocol';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunningServer } from '../index.ts';
import { ADMIN_TOKEN, makeFolders, SETTINGS, startServer, TestAdmin } from '../testing/server.ts';
import { TestVolunteer } from '../testing/volunteer.ts';

const folders = makeFolders();
let server: RunningServer;
let admin: TestAdmin;
let runId: string;
let otherRun: string;
const opened: TestVolunteer[] = [];

const create = (wish: Partial<InviteWish> = {}) => admin.request('admin:invite-create', { runId, ...wish });
const listed = async (inviteId: string): Promise<Invite | undefined> =>
  (await admin.request('admin:invites', {})).invites.find((invite) => invite.inviteId === inviteId);

async function enter(invite: string | undefined, identity?: TestVolunteer, run = runId): Promise<TestVolunteer> {
  const volunteer = new TestVolunteer(server.url, identity ? { identity } : {});
  opened.push(volunteer);
  return volunteer.enter({ runId: run, ...(invite === undefined ? {} : { invite }) });
}

async function restart(): Promise<void> {
  admin.close();
  await server.close();
  server = await startServer(folders);
  admin = new TestAdmin(server.url);
}

beforeAll(async () => {
  server = await startServer(folders);
  admin = new TestAdmin(server.url);
  const made = { ...SETTINGS, admission: 'invited' as const };
  runId = (await admin.request('admin:create', { ...made, name: 'Invited' })).runId;
  otherRun = (await admin.request('admin:create', { ...made, name: 'Other' })).runId;
});

afterAll(async () => {
  for (const volunteer of opened) volunteer.close();
  admin.close();
  await server.close();
  folders.remove();
});

describe('a run of invited volunteers', () => {
  it('turns away who has none, before it can do anything', async () => {
    const stranger = new TestVolunteer(server.url);
    opened.push(stranger);
    await expect(stranger.enter({ runId })).rejects.toMatchObject({ code: 'invite-required' });
    await expect(stranger.join(1)).rejects.toMatchObject({ code: 'out-of-order' });
  });

  it('lets an operator’s evaluator in without, and an open run everybody', async () => {
    const evaluator = new TestVolunteer(server.url);
    opened.push(evaluator);
    await evaluator.enter({ runId, operatorToken: ADMIN_TOKEN });
    const open = await admin.request('admin:create', { ...SETTINGS, name: 'Open' });
    await enter('not even an invite', undefined, open.runId);
  });
});

describe('an invite', () => {
  it('lets in as many keys as it may; coming back does not count again, with or without it', async () => {
    const { invite, token } = await create({ maxUses: 2, label: 'for two' });
    expect(invite).toMatchObject({ uses: 0, maxUses: 2, label: 'for two', createdBy: 'admin', revokedAt: null });
    const first = await enter(token);
    await enter(token, first);
    await enter(undefined, first);
    expect((await listed(invite.inviteId))?.uses).toBe(1);
    await enter(token);
    await expect(enter(token)).rejects.toMatchObject({ code: 'invite-used-up' });
    await enter(token, first);
    expect((await listed(invite.inviteId))?.uses).toBe(2);
  });

  it('counts exactly when many come at once', async () => {
    const { invite, token } = await create({ maxUses: 7 });
    const results = await Promise.allSettled(Array.from({ length: 25 }, () => enter(token)));
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(7);
    for (const result of results) {
      if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'invite-used-up' });
    }
    expect((await listed(invite.inviteId))?.uses).toBe(7);
  });

  it('is not used by a hello whose key is never proved', async () => {
    const { invite, token } = await create({ maxUses: 1 });
    const thief = new TestVolunteer(server.url);
    opened.push(thief);
    const victim = await enter((await create()).token);
    const hello = { protocolVersion: PROTOCOL_VERSION, runId, name: null, invite: token };
    const client = { kind: 'load' as const, version: '0' };
    const { challenge } = await thief.request('volunteer:hello', { ...hello, client, operatorToken: null });
    const { publicKey } = victim;
    const forged = thief.request('volunteer:prove', { publicKey, signature: thief.sign(challenge) });
    await expect(forged).rejects.toMatchObject({ code: 'bad-signature' });
    expect((await listed(invite.inviteId))?.uses).toBe(0);
    await enter(token, victim);
    // The key was in already, by another invite.
    expect((await listed(invite.inviteId))?.uses).toBe(0);
  });

  it('expires for newcomers, not for those it let in', async () => {
    const { token } = await create({ expiresInMs: 1_000 });
    const early = await enter(token);
    await new Promise((resolve) => setTimeout(resolve, 1_050));
    await expect(enter(token)).rejects.toMatchObject({ code: 'invite-expired' });
    await enter(token, early);
  });

  it('taken back lets nobody in, those it let in before included', async () => {
    const { invite, token } = await create();
    const before = await enter(token);
    const revoked = await admin.request('admin:invite-revoke', { inviteId: invite.inviteId });
    expect(revoked.revokedAt).not.toBeNull();
    await expect(enter(token)).rejects.toMatchObject({ code: 'invite-revoked' });
    // On its open connection too; it may still come back to withdraw or be forgotten.
    await expect(before.join(1)).rejects.toMatchObject({ code: 'invite-revoked' });
    await expect((await enter(token, before)).join(1)).rejects.toMatchObject({ code: 'invite-revoked' });
    await (await enter((await create()).token, before)).join(1);
    await expect(admin.request('admin:invite-revoke', { inviteId: 'none' })).rejects.toMatchObject({
      code: 'not-found',
    });
  });

  it('is for its run, or for all', async () => {
    const { token } = await create();
    await expect(enter(token, undefined, otherRun)).rejects.toMatchObject({ code: 'invite-invalid' });
    const { invite, token: everywhere } = await create({ runId: null });
    const volunteer = await enter(everywhere);
    await enter(everywhere, volunteer, otherRun);
    expect((await listed(invite.inviteId))?.uses).toBe(2);
    await expect(create({ runId: 'none' })).rejects.toMatchObject({ code: 'unknown-run' });
  });

  it('is refused when any character of it was changed, or when another server signed it', async () => {
    const { token } = await create();
    const [claims = '', signature = ''] = token.split('.');
    const payload = JSON.parse(Buffer.from(claims, 'base64url').toString());
    const forged = Buffer.from(JSON.stringify({ ...payload, e: payload.e + 1e12 })).toString('base64url');
    const elsewhere = makeFolders();
    const other = await startServer(elsewhere);
    const boss = new TestAdmin(other.url);
    const foreign = await boss.request('admin:invite-create', {});
    boss.close();
    await other.close();
    elsewhere.remove();
    for (const bad of [`${forged}.${signature}`, `${claims}.`, claims, `${token}.x`, 'x', foreign.token]) {
      await expect(enter(bad), bad).rejects.toMatchObject({ code: 'invite-invalid' });
    }
    await expect(enter('x'.repeat(601))).rejects.toMatchObject({ code: 'bad-message' });
  });

  it('keeps its uses over a restart, and over a line that a kill cut short', async () => {
    const { invite, token } = await create({ maxUses: 2 });
    const first = await enter(token);
    const path = join(folders.dataDir, 'invites', `${invite.inviteId}.uses.jsonl`);
    expect(readFileSync(path, 'utf8')).toContain(first.clientId);
    appendFileSync(path, '{"runId":"half a li');
    await restart();
    expect((await listed(invite.inviteId))?.uses).toBe(1);
    await enter(undefined, first);
    await enter(token);
    await expect(enter(token)).rejects.toMatchObject({ code: 'invite-used-up' });
    await restart();
    expect((await listed(invite.inviteId))?.uses).toBe(2);
  });

  it('forgets the name of a client that asks for it, not that it came', async () => {
    const { invite, token } = await create({ maxUses: 1 });
    const volunteer = await enter(token);
    const path = join(folders.dataDir, 'invites', `${invite.inviteId}.uses.jsonl`);
    expect(readFileSync(path, 'utf8')).toContain(volunteer.clientId);
    await volunteer.request('volunteer:forget', {});
    expect(readFileSync(path, 'utf8')).not.toContain(volunteer.clientId);
    expect((await listed(invite.inviteId))?.uses).toBe(1);
    await expect(enter(token, volunteer)).rejects.toMatchObject({ code: 'invite-used-up' });
  });

  it('is signed by a key that only the server’s user can read', () => {
    expect(statSync(join(folders.dataDir, 'invites', 'key.pem')).mode & 0o077).toBe(0);
  });
});
