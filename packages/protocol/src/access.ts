// Who may do what on the admin's side: roles, accounts, sessions, and the invites volunteers come with. Passwords and
// tokens travel to the server in these messages and never back, a new token's only showing excepted.
import { z } from 'zod';
import { countSchema, idSchema } from './primitives.ts';

/** Least first: each may do all that the ones before it may. */
export const ROLES = ['viewer', 'operator', 'owner'] as const;
export const roleSchema = z.enum(ROLES);
export type Role = z.infer<typeof roleSchema>;

/** Whether `role` may do what `needed` may. */
export const roleReaches = (role: Role, needed: Role): boolean => ROLES.indexOf(role) >= ROLES.indexOf(needed);

export const accountNameSchema = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._-]{0,31}$/, 'must be 1 to 32 lower-case letters, digits, ".", "_" or "-"');

/** Long rather than intricate (NIST SP 800-63B §5.1.1); the upper end bounds the work of hashing it. */
export const passwordSchema = z
  .string()
  .min(10, 'must have at least 10 characters')
  .max(200, 'must have at most 200 characters');

export const accountSchema = z.object({
  name: accountNameSchema,
  role: roleSchema,
  createdAt: z.iso.datetime(),
  /** Sessions now open. */
  sessions: countSchema,
});
export type Account = z.infer<typeof accountSchema>;

export const sessionInfoSchema = z.object({
  sessionId: idSchema,
  account: accountNameSchema,
  createdAt: z.iso.datetime(),
  /** To the minute. */
  lastUsedAt: z.iso.datetime(),
  /** When it ends if it is not used any more; use moves it, up to a fixed end. */
  expiresAt: z.iso.datetime(),
  /** Whether the asker signed in by it. */
  current: z.boolean(),
});
export type SessionInfo = z.infer<typeof sessionInfoSchema>;

/** Body of POST /api/sessions. Neither field tells more of its form than its size: a wrong one is just wrong. */
export const signInSchema = z.object({ name: z.string().max(64), password: z.string().max(200) });
export const signInReplySchema = z.object({
  token: z.string().max(200),
  name: accountNameSchema,
  role: roleSchema,
  sessionId: idSchema,
  expiresAt: z.iso.datetime(),
});
export type SignInReply = z.infer<typeof signInReplySchema>;

/** Who the server takes the asker for. The admin token is `admin` with the role of an owner and no session. */
export const actorSchema = z.object({ name: z.string().max(64), role: roleSchema, sessionId: idSchema.nullable() });
export type Actor = z.infer<typeof actorSchema>;

/** Most characters of an invite as volunteers carry it. */
export const MAX_INVITE_LENGTH = 600;
export const inviteTokenSchema = z.string().max(MAX_INVITE_LENGTH);

const YEAR_MS = 366 * 86_400_000;

export const inviteWishSchema = z.object({
  /** null: every run of this server that wants invites. */
  runId: idSchema.nullable().default(null),
  /** For the list: whom it was made for. */
  label: z.string().trim().max(80).default(''),
  expiresInMs: z
    .int()
    .min(1_000)
    .max(YEAR_MS)
    .default(7 * 86_400_000),
  /** Volunteers (keys) that may come in with it. */
  maxUses: z.int().min(1).max(1_000_000).default(50),
});

export type InviteWish = z.input<typeof inviteWishSchema>;

export const inviteSchema = z.object({
  inviteId: idSchema,
  runId: idSchema.nullable(),
  label: z.string().max(80),
  createdAt: z.iso.datetime(),
  createdBy: z.string().max(64),
  expiresAt: z.iso.datetime(),
  maxUses: countSchema,
  uses: countSchema,
  revokedAt: z.iso.datetime().nullable(),
});
export type Invite = z.infer<typeof inviteSchema>;
