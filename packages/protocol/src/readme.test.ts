// README.md describes exactly the messages, fields and error codes of the schemas: nothing missing, nothing invented.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { accountSchema, actorSchema, inviteSchema, inviteWishSchema, sessionInfoSchema } from './access.ts';
import {
  ADMIN_NOTICES,
  ADMIN_REQUESTS,
  alertSchema,
  banSchema,
  clientPageSchema,
  clientQuerySchema,
  clientRowSchema,
  contributionSchema,
  contributorSchema,
  logLineSchema,
  matrixSpectrumSchema,
  overviewSchema,
  roundRecordSchema,
  runSnapshotSchema,
} from './admin-messages.ts';
import { deviceReportSchema, ownLimitsSchema, rankProposalSchema, rankVerdictSchema } from './device.ts';
import { ERROR_CODES, wireErrorSchema } from './errors.ts';
import { ROUTES } from './http.ts';
import { publicKeySchema, receiptKeySchema } from './keys.ts';
import { inclusionProofSchema, receiptSchema, treeHeadSchema, uploadOutcomeSchema } from './receipts.ts';
import {
  manifestFileSchema,
  manifestSchema,
  roundViewSchema,
  runIdentitySchema,
  runSettingsSchema,
  runViewSchema,
  taskInfoSchema,
} from './run.ts';
import { PROTOCOL_VERSION } from './version.ts';
import {
  blobReferenceSchema,
  dataChoiceSchema,
  evaluationJobSchema,
  evaluationResultSchema,
  grantSchema,
  leaseSchema,
  progressSchema,
  releaseReasonSchema,
  trainingSettingsSchema,
  VOLUNTEER_NOTICES,
  VOLUNTEER_REQUESTS,
} from './volunteer-messages.ts';

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');

/** Sections by heading of level `level`, up to the next heading of that level or above. */
function sections(text: string, level: number): Map<string, string> {
  const found = new Map<string, string>();
  const heading = new RegExp(`^#{${level}} (.+)$`, 'gm');
  const next = new RegExp(`^#{1,${level}} `, 'm');
  for (const match of text.matchAll(heading)) {
    const rest = text.slice((match.index ?? 0) + match[0].length);
    const end = rest.search(next);
    found.set(match[1] ?? '', end === -1 ? rest : rest.slice(0, end));
  }
  return found;
}

/** What a client does about each error. */
const ADVICE = 'What to do about an error';

const chapters = sections(readme, 2);
const chapter = (name: string): string => chapters.get(name) ?? '';

/** First cells of a table's rows, without backticks. */
const firstCells = (text: string): string[] => [...text.matchAll(/^\| `([^`]+)` *\|/gm)].map((match) => match[1] ?? '');

function fieldsOf(schema: z.ZodType): string[] {
  if (schema instanceof z.ZodObject) return Object.keys(schema.shape);
  if (schema instanceof z.ZodDiscriminatedUnion) {
    return [...new Set(schema.options.flatMap((option) => fieldsOf(option as z.ZodType)))];
  }
  throw new Error(`no fields in a ${schema.type}`);
}

/** Types with a section of their own. */
const TYPES: Record<string, z.ZodType> = {
  PublicKey: publicKeySchema,
  ReceiptKey: receiptKeySchema,
  DeviceReport: deviceReportSchema,
  OwnLimits: ownLimitsSchema,
  RankVerdict: rankVerdictSchema,
  RankProposal: rankProposalSchema,
  DataChoice: dataChoiceSchema,
  BlobReference: blobReferenceSchema,
  Grant: grantSchema,
  TrainingSettings: trainingSettingsSchema,
  Lease: leaseSchema,
  Progress: progressSchema,
  Receipt: receiptSchema,
  UploadOutcome: uploadOutcomeSchema,
  TreeHead: treeHeadSchema,
  InclusionProof: inclusionProofSchema,
  EvaluationJob: evaluationJobSchema,
  EvaluationResult: evaluationResultSchema,
  RunSettings: runSettingsSchema,
  RunIdentity: runIdentitySchema,
  RunView: runViewSchema,
  RoundView: roundViewSchema,
  Manifest: manifestSchema,
  ManifestFile: manifestFileSchema,
  TaskInfo: taskInfoSchema,
  ClientRow: clientRowSchema,
  Contribution: contributionSchema,
  MatrixSpectrum: matrixSpectrumSchema,
  RoundRecord: roundRecordSchema,
  LogLine: logLineSchema,
  ClientQuery: clientQuerySchema,
  ClientPage: clientPageSchema,
  RunSnapshot: runSnapshotSchema,
  Contributor: contributorSchema,
  Alert: alertSchema,
  Ban: banSchema,
  Overview: overviewSchema,
  Actor: actorSchema,
  Account: accountSchema,
  SessionInfo: sessionInfoSchema,
  InviteWish: inviteWishSchema,
  Invite: inviteSchema,
};

const typeOf = (schema: z.ZodType): string | undefined =>
  Object.entries(TYPES).find(([, candidate]) => candidate === schema)?.[0];

const payloads = (messages: Record<string, { payload: z.ZodType }>) =>
  Object.fromEntries(Object.entries(messages).map(([event, { payload }]) => [event, payload]));

const CHAPTERS: [string, Record<string, z.ZodType>][] = [
  ['Volunteer → server', payloads(VOLUNTEER_REQUESTS)],
  ['Server → volunteer', VOLUNTEER_NOTICES],
  ['Admin → server', payloads(ADMIN_REQUESTS)],
  ['Server → admin', ADMIN_NOTICES],
];

const eventOf = (heading: string): string => heading.replace(/^`([^`]+)`.*$/, '$1');

describe.each(CHAPTERS)('%s', (name, messages) => {
  const described = new Map([...sections(chapter(name), 3)].map(([heading, text]) => [eventOf(heading), text]));

  it('describes every message, and no other', () => {
    expect([...described.keys()].sort()).toEqual(Object.keys(messages).sort());
  });

  it.each(Object.entries(messages))('%s: its payload, field by field', (event, payload) => {
    const text = described.get(event) ?? '';
    const type = typeOf(payload);
    if (type) expect(text).toContain(`Payload: [${type}](#${type.toLowerCase()})`);
    else if (fieldsOf(payload).length === 0) expect(text).toContain('payload is empty');
    else expect(firstCells(text).sort()).toEqual(fieldsOf(payload).sort());
  });
});

describe('roles', () => {
  it('every request of an admin says in its heading which role it takes', () => {
    const headings = [...sections(chapter('Admin → server'), 3).keys()];
    const wanted = Object.entries(ADMIN_REQUESTS).map(([event, { role }]) => `\`${event}\` (${role})`);
    expect(headings.sort()).toEqual(wanted.sort());
  });
});

describe('replies', () => {
  const requests = Object.entries({ ...VOLUNTEER_REQUESTS, ...ADMIN_REQUESTS });
  const described = new Map(
    ['Volunteer → server', 'Admin → server'].flatMap((name) =>
      [...sections(chapter(name), 3)].map(([heading, text]): [string, string] => [eventOf(heading), text]),
    ),
  );

  it.each(requests)('%s is answered with what its section says', (event, { reply }) => {
    const text = described.get(event)?.match(/Reply: ([\s\S]*)/)?.[1] ?? '';
    const type = typeOf(reply);
    if (type) expect(text).toContain(`[${type}](#${type.toLowerCase()})`);
    else if (fieldsOf(reply).length === 0) expect(text).toMatch(/^`\{\}`/);
    else for (const field of fieldsOf(reply)) expect(text).toContain(field);
  });
});

describe('types', () => {
  const described = sections(chapter('Types'), 3);

  it('are the ones the messages are made of', () => {
    expect([...described.keys()].sort()).toEqual(Object.keys(TYPES).sort());
  });

  it.each(Object.entries(TYPES))('%s: every field', (name, schema) => {
    expect(firstCells(described.get(name) ?? '').sort()).toEqual(fieldsOf(schema).sort());
  });

  it('links lead somewhere', () => {
    const headings = [...readme.matchAll(/^#+ (.+)$/gm)].map((match) =>
      (match[1] ?? '')
        .toLowerCase()
        .replace(/[^\w\- ]/g, '')
        .replaceAll(' ', '-'),
    );
    const links = [...readme.matchAll(/\]\(#([^)]+)\)/g)].map((match) => match[1] ?? '');
    expect(links.filter((link) => !headings.includes(link))).toEqual([]);
  });
});

describe('errors', () => {
  it('lists every code with its meaning, and no other', () => {
    const rows = [...chapter('Errors').matchAll(/^\| `([a-z-]+)` *\| ([^|]+?) *\|$/gm)];
    expect(Object.fromEntries(rows.map((match) => [match[1], match[2]]))).toEqual(ERROR_CODES);
    const fields = firstCells(sections(chapter('Errors'), 3).get('WireError') ?? '');
    expect(fields.filter((field) => !(field in ERROR_CODES)).sort()).toEqual(fieldsOf(wireErrorSchema).sort());
  });

  it('names no code that does not exist', () => {
    const named = [...readme.matchAll(/^Errors: ([\s\S]*?)(?:\n\n|$)/gm)].flatMap((match) =>
      [...(match[1] ?? '').matchAll(/`([a-z]+(?:-[a-z]+)*)`/g)].map((code) => code[1] ?? ''),
    );
    expect(named.length).toBeGreaterThan(30);
    expect(named.filter((code) => !(code in ERROR_CODES))).toEqual([]);
  });

  it('every code is named where it can occur', () => {
    const prose = readme.replace(chapter(ADVICE), '').replace(/^\| `[a-z-]+` *\| [^|]+ \|$/gm, '');
    const missing = Object.keys(ERROR_CODES).filter((code) => !prose.includes(`\`${code}\``));
    expect(missing).toEqual([]);
  });

  it('says of every code, once, what a client does about it', () => {
    const cells = [...chapter(ADVICE).matchAll(/^\| (`[^|]+`) *\|/gm)].map((match) => match[1] ?? '');
    const advised = cells.flatMap((cell) => [...cell.matchAll(/`([a-z-]+)`/g)].map((code) => code[1] ?? ''));
    expect(advised.sort()).toEqual(Object.keys(ERROR_CODES).sort());
  });
});

describe('the rest', () => {
  it('names every HTTP path', () => {
    const paths = Object.values(ROUTES).map((route) => (typeof route === 'string' ? route : route('<1>', '<2>')));
    for (const path of paths) {
      const pattern = path.replace(/<\d>/g, '<[a-zA-Z0-9]+>').replaceAll('.', '\\.');
      expect(chapter('HTTP')).toMatch(new RegExp(`\`(?:GET|POST|DELETE) ${pattern}\``));
    }
  });

  it('names the version and every reason to release a lease', () => {
    expect(readme).toContain(`\`protocolVersion\` is ${PROTOCOL_VERSION}.`);
    for (const reason of releaseReasonSchema.options) expect(chapter('Volunteer → server')).toContain(`\`${reason}\``);
  });
});
