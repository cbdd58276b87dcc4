// `weft verify`: checks a receipt against the server's key and the signed record of its round, and says what that proves and what
// it does not. With a saved key and proof it needs no server.
import { readFileSync, writeFileSync } from 'node:fs';
import {
  faultOfProof,
  type InclusionProof,
  inclusionProofSchema,
  isReceiptSigned,
  type KeptReceipt,
  keptReceiptSchema,
  ProtocolError,
  type Receipt,
  type ReceiptKey,
  ROUTES,
  receiptKeySchema,
  receiptSchema,
  receiptsFileSchema,
  wireErrorSchema,
} from '@weft/protocol';
import { messageOf } from '@weft/volunteer';
import type { z } from 'zod';
import { action, CommandError, type Io, UsageError } from '../command.ts';
import { parseServerAddress } from '../node-volunteer/server-address.ts';
import type { Register } from '../program.ts';

interface VerifyOptions {
  readonly server?: string;
  readonly proof?: string;
  readonly key?: string;
  readonly receipt?: string;
  readonly saveProof?: string;
  readonly saveKey?: string;
}

interface Verdict {
  readonly receiptId: string;
  readonly runId: string;
  readonly round: number;
  /** `false`: something claims what is not so. `signed`: the server's word, its round not checked. */
  readonly verdict: 'included' | 'signed' | 'false';
  readonly fault: string | null;
  readonly outcome: InclusionProof['outcome'] | null;
  readonly proven: readonly string[];
  readonly notProven: readonly string[];
}

const HELP = `
RECEIPT is a file of \`weft join\` (STATE_DIR/receipts/<id>.json), the page's download, or a bare receipt.
The key is taken from --key, else from --server, else from the file itself, where it was kept when the receipt came.

Examples:
  weft verify receipts.json --server https://weft.example
  weft verify r.json --server https://weft.example --save-key key.json --save-proof proof.json
  weft verify r.json --key key.json --proof proof.json`;

export const registerVerify: Register = (program) => {
  const command = program
    .command('verify')
    .description(
      'Check a receipt: signed by the server, and in the signed record of its round. Exit 1 for a false one.',
    )
    .argument('<receipt>', 'file with a receipt, or with many')
    .option('--server <url>', 'ask this server for its key and for the proof')
    .option('--proof <file>', 'the proof, saved earlier')
    .option('--key <file>', 'the server’s public key, saved earlier')
    .option('--receipt <id>', 'only this one of the file’s receipts')
    .option('--save-proof <file>', 'keep the proof the server gave')
    .option('--save-key <file>', 'keep the server’s key')
    .addHelpText('after', HELP);
  action<VerifyOptions>(command, verify);
};

async function verify(options: VerifyOptions, [path = '']: string[], io: Io): Promise<void> {
  if ((options.saveKey ?? options.saveProof) !== undefined && options.server === undefined) {
    throw new UsageError('--save-key and --save-proof keep what --server answers; name one.');
  }
  const all = readReceipts(path);
  const chosen =
    options.receipt === undefined ? all : all.filter(({ receipt }) => receipt.receiptId === options.receipt);
  if (chosen.length === 0) throw new UsageError(`${path} has no receipt ${options.receipt ?? ''}.`.replace(' .', '.'));
  if (chosen.length > 1 && (options.proof ?? options.saveProof) !== undefined) {
    throw new UsageError(`${path} has ${chosen.length} receipts and a proof is of one; choose it with --receipt ID.`);
  }
  const origin = options.server === undefined ? null : parseServerAddress(options.server).origin;
  const given =
    options.key !== undefined
      ? readAs(options.key, receiptKeySchema, 'a key')
      : origin && receiptKeySchema.parse(await ask(origin, ROUTES.key, io.signal));
  if (given && options.saveKey !== undefined) writeFileSync(options.saveKey, `${JSON.stringify(given, null, 1)}\n`);
  const saved = options.proof === undefined ? null : readAs(options.proof, inclusionProofSchema, 'a proof');
  const verdicts: Verdict[] = [];
  for (const kept of chosen) {
    const key = given ?? kept.key;
    if (!key) throw new UsageError(`${path} holds no key; give the server’s with --key FILE or --server URL.`);
    const found = saved ?? (origin === null ? null : await fetchProof(origin, kept.receipt, io.signal));
    if (found && !(found instanceof ProtocolError) && options.saveProof !== undefined) {
      writeFileSync(options.saveProof, `${JSON.stringify(found, null, 1)}\n`);
    }
    const source = options.key !== undefined ? 'key file' : origin === null ? 'receipt file' : 'server';
    verdicts.push(await judge(kept.receipt, key, source, found));
  }
  const ok = verdicts.every(({ verdict }) => verdict !== 'false');
  io.result({ ok, receipts: verdicts }, () => verdicts.map(tell).join('\n\n'));
  if (!ok) process.exitCode = 1;
}

type KeySource = 'key file' | 'receipt file' | 'server';

async function judge(
  receipt: Receipt,
  key: ReceiptKey,
  source: KeySource,
  proof: InclusionProof | ProtocolError | null,
): Promise<Verdict> {
  const { receiptId, runId, round } = receipt;
  const about = { receiptId, runId, round, outcome: null };
  const whose = `That ${SOURCES[source]} is the operator’s: compare it with what the operator publishes.`;
  const never = [whose, 'What the merge made of the upload: only the operator has seen it computed.'];
  const refuted = (fault: string): Verdict => ({ ...about, verdict: 'false', fault, proven: [], notProven: never });
  if (receipt.keyId !== key.keyId) {
    return refuted(`The receipt names key ${receipt.keyId}; the ${SOURCES[source]} is ${key.keyId}.`);
  }
  if (!(await isReceiptSigned(receipt, key))) {
    return refuted('The signature does not fit: a field was changed, or another key signed.');
  }
  const signed = `The holder of key ${key.keyId} acknowledged ${receipt.bytes} bytes with SHA-256 ${receipt.sha256} on ${receipt.acceptedAt}.`;
  if (proof === null || (proof instanceof ProtocolError && proof.code === 'no-proof')) {
    const why = proof === null ? 'no proof was given; use --server or --proof' : proof.message;
    return {
      ...about,
      verdict: 'signed',
      fault: null,
      proven: [signed],
      notProven: [`That the upload is in the record of round ${round}: ${why}`, ...never],
    };
  }
  if (proof instanceof ProtocolError) {
    return refuted(
      `The receipt is signed, but the server has no such upload: it was withdrawn, its volunteer forgotten, or the server broke its word. ${proof.message}`,
    );
  }
  const fault = await faultOfProof(receipt, proof, key.publicKey);
  if (fault !== null) return refuted(fault);
  const { outcome, head } = proof;
  const became = outcome.merged ? 'merged' : `quarantined (${outcome.reason ?? 'no reason given'})`;
  return {
    ...about,
    outcome,
    verdict: 'included',
    fault: null,
    proven: [
      signed,
      `The signed record of round ${round} (root ${head.root}, ${head.size} uploads, ${head.signedAt}) has this upload as ${became}, into version ${head.version}.`,
    ],
    notProven: ['That others were shown the same record: compare the root with theirs.', ...never],
  };
}

const SOURCES: Record<KeySource, string> = {
  'key file': 'key in --key',
  'receipt file': 'key kept with the receipt',
  server: 'key the server gave',
};

const HEADS: Record<Verdict['verdict'], string> = {
  included: 'holds, and its round’s record includes it',
  signed: 'holds; its round was not checked',
  false: 'is FALSE',
};

function tell({ receiptId, round, verdict, fault, proven, notProven }: Verdict): string {
  return [
    `Receipt ${receiptId} of round ${round} ${HEADS[verdict]}.`,
    ...(fault === null ? [] : [`  ${fault}`]),
    ...proven.map((line) => `  proven:      ${line}`),
    ...notProven.map((line) => `  not proven:  ${line}`),
  ].join('\n');
}

/** A receipt and, where the file has it, the key kept with it. */
type Found = { readonly receipt: Receipt; readonly key: KeptReceipt['key'] | null };

function readReceipts(path: string): Found[] {
  const value = readDocument(path);
  const many = receiptsFileSchema.safeParse(value);
  if (many.success) return many.data.receipts;
  const kept = keptReceiptSchema.safeParse(value);
  if (kept.success) return [kept.data];
  const bare = receiptSchema.safeParse(value);
  if (bare.success) return [{ receipt: bare.data, key: null }];
  throw new CommandError('no-receipt', `${path} holds no receipt: ${bare.error.issues[0]?.message ?? ''}.`);
}

function readDocument(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    throw new CommandError('no-such-file', `${path} cannot be read as JSON.`, { cause });
  }
}

function readAs<T extends z.ZodType>(path: string, schema: T, what: string): z.output<T> {
  const read = schema.safeParse(readDocument(path));
  if (read.success) return read.data;
  throw new CommandError('bad-file', `${path} holds no ${what.replace(/^a /, '')} of a Weft server.`, {
    cause: read.error,
  });
}

async function fetchProof(
  origin: string,
  receipt: Receipt,
  signal: AbortSignal,
): Promise<InclusionProof | ProtocolError> {
  try {
    return inclusionProofSchema.parse(await ask(origin, ROUTES.proof(receipt.runId, receipt.receiptId), signal));
  } catch (error) {
    if (error instanceof ProtocolError && ANSWERS.includes(error.code)) return error;
    throw error;
  }
}

/** What a server says of a receipt it cannot prove. */
const ANSWERS = ['no-proof', 'unknown-receipt', 'unknown-run'];

async function ask(origin: string, path: string, signal: AbortSignal): Promise<unknown> {
  let reply: Response;
  let body: unknown;
  try {
    reply = await fetch(`${origin}${path}`, { signal });
    body = await reply.json();
  } catch (cause) {
    throw new CommandError('no-answer', `${origin} did not answer as a Weft server: ${messageOf(cause)}`, { cause });
  }
  if (reply.ok) return body;
  const wire = wireErrorSchema.safeParse(
    body !== null && typeof body === 'object' && 'error' in body ? body.error : null,
  );
  if (wire.success) throw ProtocolError.fromWire(wire.data);
  throw new CommandError('no-answer', `${origin}${path} was answered with HTTP ${reply.status}.`);
}
