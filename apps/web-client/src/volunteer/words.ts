// What the volunteer page says, from data: problems, what leaves the device, why this rank and no larger one. Pure.
import type { OwnLimits, RankVerdict } from '@weft/protocol';
import { bytes, count, duration, quantity } from '../shared/format.ts';
import type { Problem } from '../shared/note.tsx';
import type { DataCheck, Fault, LeavingField, TabState } from '../worker/api.ts';

/** What a problem's button does. */
export type Remedy = 'reload' | 'retry' | 'limits' | null;

const NOTHING_LOST = 'Nothing was downloaded and nothing was sent.';

const REMEDIES: Readonly<Record<string, { kept: string | null; remedy: Remedy }>> = {
  'no-webgpu': { kept: NOTHING_LOST, remedy: null },
  'insecure-context': { kept: NOTHING_LOST, remedy: null },
  'no-adapter': { kept: NOTHING_LOST, remedy: 'reload' },
  'protocol-version': { kept: 'What was downloaded stays on this device.', remedy: 'reload' },
  'no-rank-fits': { kept: 'The model stays on this device.', remedy: 'limits' },
  // Another choice of data is the remedy, and stands right below.
  'own-data-refused': { kept: 'Your file stayed in this tab.', remedy: null },
  'unknown-task': { kept: null, remedy: null },
  // Another link is the remedy; the server's sentence says whom to ask.
  'invite-required': { kept: NOTHING_LOST, remedy: null },
  'invite-invalid': { kept: NOTHING_LOST, remedy: null },
  'invite-expired': { kept: NOTHING_LOST, remedy: null },
  'invite-used-up': { kept: NOTHING_LOST, remedy: null },
  'invite-revoked': { kept: null, remedy: null },
  // These say themselves what was kept.
  'device-lost': { kept: null, remedy: 'retry' },
  'out-of-memory': { kept: null, remedy: 'retry' },
  'storage-full': { kept: null, remedy: 'retry' },
};

/** A fault as the page shows it, and what its button does. */
export function problemOf(
  fault: Fault,
  about: { readonly clientId: string | null; readonly rounds: number; readonly browser: string },
): { problem: Problem; remedy: Remedy } {
  const known = REMEDIES[fault.code];
  const helped =
    about.rounds > 0
      ? `${quantity(about.rounds, 'round')} you delivered ${about.rounds === 1 ? 'is' : 'are'} safe with the server.`
      : null;
  const technical = [
    fault.message,
    `browser: ${about.browser}`,
    about.clientId === null ? '' : `client: ${about.clientId}`,
  ];
  return {
    problem: {
      tone: fault.retrying ? 'warning' : 'error',
      happened: fault.message,
      kept: fault.retrying ? null : (known?.kept ?? helped),
      remedy: null,
      code: fault.code,
      technical: technical.filter(Boolean).join('\n'),
    },
    remedy: fault.retrying ? null : known ? known.remedy : 'retry',
  };
}

/** Why the device trains at this rank and not at a larger one. */
export function rankReason(rank: number | null, verdicts: readonly RankVerdict[]): string {
  if (rank === null) return '';
  const next = verdicts.find((verdict) => verdict.rank > rank && !verdict.fits);
  return next ? next.reason : 'The largest rank of this run.';
}

export const verdictOf = (state: Pick<TabState, 'rank' | 'verdicts'>): RankVerdict | null =>
  state.verdicts.find((verdict) => verdict.rank === state.rank) ?? null;

/** What is said of a file that was read here. */
export function fileSentence(check: Extract<DataCheck, { ok: true }>): string {
  const { rows, cut, unlabelled } = check;
  const parts = [`${quantity(rows, 'row')}.`];
  if (cut !== null && cut > 0)
    parts.push(`${count(cut)} ${cut === 1 ? 'is' : 'are'} longer than the run’s sequence and will be cut.`);
  if (unlabelled !== null && unlabelled > 0) {
    parts.push(`${count(unlabelled)} ${unlabelled === 1 ? 'has' : 'have'} nothing left to learn and will be left out.`);
  }
  return parts.join(' ');
}

// --- own limits -------------------------------------------------------------------------------------------------------------

/** The limits as typed: MB and a rank, or nothing for no limit. */
export interface LimitTexts {
  readonly memory: string;
  readonly rank: string;
  readonly upload: string;
}

export const NO_LIMITS: OwnLimits = { maxMemoryBytes: null, maxRank: null, maxUploadBytes: null };

/** MB are 10⁶ bytes. */
const MEGABYTE = 1e6;

export function limitTexts({ maxMemoryBytes, maxRank, maxUploadBytes }: OwnLimits): LimitTexts {
  const megabytes = (value: number | null) => (value === null ? '' : String(value / MEGABYTE));
  return {
    memory: megabytes(maxMemoryBytes),
    rank: maxRank === null ? '' : String(maxRank),
    upload: megabytes(maxUploadBytes),
  };
}

/** Limits where the texts are right, else a message for each field at fault. */
export function readLimits(
  texts: LimitTexts,
): { limits: OwnLimits } | { errors: Partial<Record<keyof LimitTexts, string>> } {
  const errors: Partial<Record<keyof LimitTexts, string>> = {};
  const read = (key: keyof LimitTexts, whole: boolean): number | null => {
    const text = texts[key].trim().replace(',', '.');
    if (text === '') return null;
    const value = Number(text);
    if (!Number.isFinite(value) || value <= 0 || (whole && !Number.isInteger(value))) {
      errors[key] = whole
        ? 'A whole number from 1, or empty for no limit.'
        : 'A number above 0, or empty for no limit.';
    }
    return value;
  };
  const [memory, rank, upload] = [read('memory', false), read('rank', true), read('upload', false)];
  if (Object.keys(errors).length > 0) return { errors };
  return {
    limits: {
      maxMemoryBytes: memory === null ? null : memory * MEGABYTE,
      maxRank: rank,
      maxUploadBytes: upload === null ? null : upload * MEGABYTE,
    },
  };
}

// --- what leaves ------------------------------------------------------------------------------------------------------------

export interface LeavingGroup {
  /** When it is sent. */
  readonly title: string;
  readonly items: readonly { readonly words: string; readonly fields: readonly string[] }[];
}

const WHEN: Readonly<Record<string, string>> = {
  'volunteer:hello': 'When the page connects',
  'volunteer:prove': 'Right after that',
  'round:join': 'When it asks for a place in a round',
  'lease:heartbeat': 'Every 10 seconds while it has a place',
  'lease:release': 'When it gives its place back',
  'upload:begin': 'With each update',
  'upload:chunk': 'The update itself, in parts',
  'upload:commit': 'After the last part',
  'upload:withdraw': 'When you take an update back',
};

/** Friendly names by message and field. A field that is missing here is shown by its own name. */
export const LEAVING_WORDS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'volunteer:hello': {
    protocolVersion: 'version of the protocol',
    runId: 'the run you were invited to',
    name: 'a name, where one is chosen (this page sends none)',
    'client.kind': 'that it is this page, and its version',
    'client.version': 'that it is this page, and its version',
    operatorToken: 'the operator’s token (this page sends none)',
    invite: 'the invite in your link, where the run asks for one',
  },
  'volunteer:prove': {
    'publicKey.kty': 'public half of a key this browser made for this run alone',
    'publicKey.crv': 'public half of a key this browser made for this run alone',
    'publicKey.x': 'public half of a key this browser made for this run alone',
    'publicKey.y': 'public half of a key this browser made for this run alone',
    signature: 'a signature that shows the key is here',
  },
  'round:join': {
    'device.adapter.vendor': 'maker and model of your GPU',
    'device.adapter.architecture': 'maker and model of your GPU',
    'device.adapter.device': 'maker and model of your GPU',
    'device.adapter.description': 'maker and model of your GPU',
    'device.adapter.software': 'whether it is a software GPU',
    'device.limits.maxBufferSize': 'limits and features of WebGPU here',
    'device.limits.maxStorageBufferBindingSize': 'limits and features of WebGPU here',
    'device.features': 'limits and features of WebGPU here',
    'device.deviceMemoryGiB': 'memory of the device, as the browser rounds it',
    'proposal.rank': 'the rank this device can carry',
    'proposal.verdicts.rank': 'for each rank: whether it fits, bytes, and why',
    'proposal.verdicts.fits': 'for each rank: whether it fits, bytes, and why',
    'proposal.verdicts.memoryBytes': 'for each rank: whether it fits, bytes, and why',
    'proposal.verdicts.uploadBytes': 'for each rank: whether it fits, bytes, and why',
    'proposal.verdicts.reason': 'for each rank: whether it fits, bytes, and why',
    'proposal.ownLimits.maxMemoryBytes': 'your limits',
    'proposal.ownLimits.maxRank': 'your limits',
    'proposal.ownLimits.maxUploadBytes': 'your limits',
    'proposal.stepSeconds': 'time one training step took, where measured',
    'data.kind': 'whether you train on a sample task or a file of your own',
    'data.task': 'the sample task you chose',
    'data.consent': 'that you agreed, for a file of your own',
    'data.examples': 'number of rows of your file',
  },
  'lease:heartbeat': {
    leaseId: 'number of your place in the round',
    hidden: 'whether the tab is hidden or paused',
    paused: 'whether the tab is hidden or paused',
    'progress.stage': 'how far it is: stage and step',
    'progress.step': 'how far it is: stage and step',
    'progress.steps': 'how far it is: stage and step',
    'progress.loss': 'loss of the latest step',
    'progress.targetTokens': 'tokens trained so far, and tokens per second',
    'progress.tokensPerSecond': 'tokens trained so far, and tokens per second',
  },
  'lease:release': {
    leaseId: 'number of your place in the round',
    reason: 'why: you stopped, the page was closed, the GPU was lost, and the like',
  },
  'upload:begin': {
    leaseId: 'number of your place in the round',
    runHash: 'which run and start weights it was trained from',
    startHash: 'which run and start weights it was trained from',
    dtype: 'number format, size and checksum of the update',
    rank: 'rank of the update',
    bytes: 'number format, size and checksum of the update',
    sha256: 'number format, size and checksum of the update',
    targetTokens: 'numbers of tokens, rows and steps trained',
    examples: 'numbers of tokens, rows and steps trained',
    steps: 'numbers of tokens, rows and steps trained',
    firstLoss: 'loss at the beginning and at the end',
    lastLoss: 'loss at the beginning and at the end',
    tokensPerSecond: 'tokens per second',
  },
  'upload:chunk': {
    leaseId: 'number of your place in the round',
    offset: 'which part it is',
    bytes: 'the update: the trained LoRA factors, or the trained elements in a sparse round',
  },
  'upload:commit': {
    leaseId: 'number of your place in the round',
    sha256: 'checksum of the update',
  },
  'upload:withdraw': {
    receiptId: 'number of its receipt',
  },
};

/** The list of {@link LeavingField}s in words, grouped by when they are sent, in the order of the messages. */
export function leavingGroups(fields: readonly LeavingField[]): LeavingGroup[] {
  const events = [...new Set(fields.map((each) => each.event))];
  return events.map((event) => {
    const items = new Map<string, string[]>();
    for (const { field } of fields.filter((each) => each.event === event)) {
      const words = LEAVING_WORDS[event]?.[field] ?? field;
      items.set(words, [...(items.get(words) ?? []), field]);
    }
    return { title: WHEN[event] ?? event, items: [...items].map(([words, names]) => ({ words, fields: names })) };
  });
}

/** What is promised of the volunteer's text, with the size of what is sent. */
export function privacySentence(uploadBytes: number | null): string {
  const update = uploadBytes === null ? 'An update' : `A ${bytes(uploadBytes)} update`;
  return `Your text stays in this tab. ${update} computed from it is sent; parts of a text can sometimes be rebuilt from such updates.`;
}

/** The line of status. What an error's note says above it is not said twice. */
export function statusText(
  state: Pick<TabState, 'status' | 'error' | 'connected' | 'run' | 'outcome'>,
  helping: boolean,
): string {
  const { status, error, connected, run, outcome } = state;
  if (error && status === error.message) {
    if (!error.retrying) return 'Not running';
    return connected ? 'Trying again' : 'Reconnecting to the server';
  }
  const ended = run?.state === 'completed' || run?.state === 'stopped';
  if (!ended || helping) return status;
  // The run's own sentence is newer than the one it ended with here: an evaluation may have come in since.
  return `${run.outcome ?? outcome ?? 'This run has ended.'} It needs no more help. Thank you.`;
}

/** "Training on your GPU · step 12 of 40": what changes seldom, which is read aloud, and what changes with every step. */
export function splitStatus(status: string): { steady: string; changing: string } {
  const at = status.indexOf(' · ');
  return at === -1 ? { steady: status, changing: '' } : { steady: status.slice(0, at), changing: status.slice(at) };
}

/** How far the work in progress is, from 0 to 1, and of what. Nothing is in progress while it waits. */
export function progressOf(state: Pick<TabState, 'stage' | 'download' | 'upload' | 'step' | 'steps' | 'compiling'>): {
  of: string;
  share: number;
} {
  const { stage, download, upload, step, steps, compiling } = state;
  const transfer = (of: string, { bytes: there, total }: { bytes: number; total: number }) => ({
    of,
    share: total > 0 ? there / total : 0,
  });
  const paused = stage === 'paused';
  if (upload && (paused || stage === 'uploading')) return transfer('Upload', upload);
  if (download && (stage === 'downloading' || (paused && step === 0))) return transfer('Download', download);
  if (compiling && stage === 'training') return { of: 'Compiling kernels', share: compiling.done / compiling.total };
  const working = paused || stage === 'training' || stage === 'uploading';
  return { of: 'Training', share: working && steps > 0 ? step / steps : 0 };
}

/** What is added to a sentence of waiting when its latest end is known. */
export function waitEnd(state: Pick<TabState, 'stage' | 'phaseEndsAt'>, now: number): string {
  if (state.stage !== 'waiting' || state.phaseEndsAt === null || state.phaseEndsAt <= now) return '';
  const seconds = Math.ceil((state.phaseEndsAt - now) / 1_000);
  return ` · at most ${seconds < 60 ? `${seconds} s` : duration(1_000 * seconds)} more`;
}

/** The browser's name, as its owner knows it. */
export function browserName(agent: string): string {
  const known: [RegExp, string][] = [
    [/Edg\//, 'Edge'],
    [/OPR\//, 'Opera'],
    [/Firefox\//, 'Firefox'],
    [/Chrom(e|ium)\//, 'Chrome'],
    [/Safari\//, 'Safari'],
  ];
  return known.find(([pattern]) => pattern.test(agent))?.[1] ?? 'browser';
}

/** The licence's name without what its note says besides: `MIT (weights: …)` → `MIT`. */
export const shortLicence = (licence: string): string => licence.split(/\s*[(;,:]|\.\s/)[0]?.trim() || licence;
