// The schemas take what they should and refuse what they should; hashes and the list of what leaves follow from them.
import { describe, expect, it } from 'vitest';
import { ackSchema, ERROR_CODES, ProtocolError, parseMessage, wireErrorSchema } from './errors.ts';
import { everythingThatLeaves } from './leaving.ts';
import { canonicalJson, idSchema, sha256Schema } from './primitives.ts';
import { runSettingsSchema } from './run.ts';
import { CHUNK_BYTES, MAX_MESSAGE_BYTES } from './version.ts';
import {
  dataChoiceSchema,
  heartbeatSchema,
  joinReplySchema,
  uploadBeginSchema,
  uploadChunkSchema,
  VOLUNTEER_REQUESTS,
} from './volunteer-messages.ts';

const HASH = 'a'.repeat(64);

describe('canonicalJson', () => {
  it('does not depend on the order of keys, at any depth', () => {
    expect(canonicalJson({ b: [{ d: 1, c: 2 }], a: null })).toBe('{"a":null,"b":[{"c":2,"d":1}]}');
    expect(canonicalJson({ a: null, b: [{ c: 2, d: 1 }] })).toBe(canonicalJson({ b: [{ d: 1, c: 2 }], a: null }));
  });

  it('keeps the order of lists and leaves absent members out', () => {
    expect(canonicalJson([2, 1])).not.toBe(canonicalJson([1, 2]));
    expect(canonicalJson({ a: undefined, b: 1 })).toBe('{"b":1}');
    expect(canonicalJson([undefined])).toBe('[null]');
  });

  it('writes what JSON.parse reads back', () => {
    const value = { text: 'é"\n\u2028', number: 1e-7, list: [true, false, null], empty: {} };
    expect(JSON.parse(canonicalJson(value))).toEqual(value);
  });

  it('sorts by UTF-16 code units, as the README says', () => {
    expect(canonicalJson({ ä: 1, z: 2, Z: 3, '😀': 4 })).toBe('{"Z":3,"z":2,"ä":1,"😀":4}');
  });
});

describe('primitives', () => {
  it.each(['', 'a b', '../x', 'ä', 'a'.repeat(65)])('%j is no id', (text) => {
    expect(idSchema.safeParse(text).success).toBe(false);
  });

  it.each(['A'.repeat(64), 'a'.repeat(63), `${'a'.repeat(63)}g`])('%j is no hash', (text) => {
    expect(sha256Schema.safeParse(text).success).toBe(false);
  });
});

describe('runSettingsSchema', () => {
  const least = { name: 'r', purpose: 'p', operator: 'o', ranks: [4], tasks: ['t'] };

  it('fills every default', () => {
    const settings = runSettingsSchema.parse(least);
    expect(settings).toMatchObject({
      strategy: 'flexlora-carry',
      alphaPerRank: 2,
      goal: 4,
      minimum: 3,
      allowOwnFiles: true,
    });
    expect(settings.targets).toHaveLength(7);
    expect(Object.values(settings)).not.toContain(undefined);
  });

  it.each([
    [{ ranks: [4, 2] }, 'ranks'],
    [{ ranks: [4, 4] }, 'ranks'],
    [{ ranks: [] }, 'ranks'],
    [{ ranks: [0] }, 'ranks'],
    [{ minimum: 5, goal: 4 }, 'minimum'],
    [{ strategy: 'fedavg' }, 'strategy'],
    [{ targets: ['lm_head'] }, 'targets'],
    [{ learningRate: Number.NaN }, 'learningRate'],
    [{ localSteps: 0 }, 'localSteps'],
  ])('refuses %j', (change, field) => {
    const result = runSettingsSchema.safeParse({ ...least, ...change });
    expect(result.error?.issues[0]?.path[0]).toBe(field);
  });
});

describe('messages', () => {
  const begin = {
    leaseId: 'l',
    runHash: HASH,
    startHash: HASH,
    dtype: 'F32',
    rank: 4,
    bytes: 1,
    sha256: HASH,
    targetTokens: 1,
    examples: 1,
    steps: 1,
    firstLoss: 1,
    lastLoss: 1,
    tokensPerSecond: 1,
  };

  it('an upload announces finite losses and positive counts', () => {
    expect(uploadBeginSchema.safeParse(begin).success).toBe(true);
    for (const change of [
      { firstLoss: Number.NaN },
      { lastLoss: Number.POSITIVE_INFINITY },
      { bytes: 0 },
      { targetTokens: -1 },
      { steps: 1.5 },
      { dtype: 'F16' },
    ]) {
      expect(uploadBeginSchema.safeParse({ ...begin, ...change }).success, JSON.stringify(change)).toBe(false);
    }
  });

  it('a chunk is binary; a Node Buffer is', () => {
    expect(uploadChunkSchema.safeParse({ leaseId: 'l', offset: 0, bytes: Buffer.from('x') }).success).toBe(true);
    expect(uploadChunkSchema.safeParse({ leaseId: 'l', offset: 0, bytes: [1, 2] }).success).toBe(false);
    expect(uploadChunkSchema.safeParse({ leaseId: 'l', offset: 0, bytes: 'AAAA' }).success).toBe(false);
  });

  it('own data needs consent', () => {
    expect(dataChoiceSchema.safeParse({ kind: 'own', consent: true, examples: 3 }).success).toBe(true);
    expect(dataChoiceSchema.safeParse({ kind: 'own', consent: false, examples: 3 }).success).toBe(false);
    expect(dataChoiceSchema.safeParse({ kind: 'own', examples: 3 }).success).toBe(false);
  });

  it('own data has no place for rows: unknown fields are dropped', () => {
    const parsed = dataChoiceSchema.parse({ kind: 'own', consent: true, examples: 1, rows: 'secret' });
    expect(JSON.stringify(parsed)).not.toContain('secret');
  });

  it('a join is answered with a lease or with a reason to wait', () => {
    expect(joinReplySchema.safeParse({ status: 'leased' }).success).toBe(false);
    expect(joinReplySchema.safeParse({ status: 'later' }).success).toBe(false);
  });

  it('a heartbeat without its progress is refused', () => {
    expect(heartbeatSchema.safeParse({ leaseId: 'l', hidden: false, paused: false }).success).toBe(false);
  });

  it('a chunk and its envelope fit the largest message', () => {
    expect(2 * CHUNK_BYTES).toBeLessThan(MAX_MESSAGE_BYTES);
  });
});

describe('errors', () => {
  it('cross the wire and come back as they were', () => {
    const error = new ProtocolError('rate-limited', 'Slow down.', { retryAfterMs: 5 });
    const back = ProtocolError.fromWire(wireErrorSchema.parse(JSON.parse(JSON.stringify(error.toWire()))));
    expect(back).toMatchObject({ code: 'rate-limited', message: 'Slow down.', retryAfterMs: 5 });
    expect('retryAfterMs' in new ProtocolError('internal', 'x').toWire()).toBe(false);
  });

  it('are cut to what the schema takes', () => {
    expect(wireErrorSchema.safeParse(new ProtocolError('internal', 'x'.repeat(5000)).toWire()).success).toBe(true);
  });

  it('have one of the listed codes', () => {
    expect(wireErrorSchema.safeParse({ code: 'other', message: 'x' }).success).toBe(false);
    for (const code of Object.keys(ERROR_CODES))
      expect(wireErrorSchema.safeParse({ code, message: '' }).success).toBe(true);
  });

  it('parseMessage names the message and the field at fault', () => {
    const parse = () =>
      parseMessage(VOLUNTEER_REQUESTS['lease:release'].payload, { leaseId: 'l', reason: 'bored' }, 'lease:release');
    expect(parse).toThrow(ProtocolError);
    expect(parse).toThrow(/^lease:release: reason: /);
    expect(() => parseMessage(idSchema, 7, 'id')).toThrow(/^id: the message: /);
  });

  it('an acknowledgement is a value or an error, never both or neither', () => {
    const schema = ackSchema(idSchema);
    expect(schema.safeParse({ ok: true, value: 'a' }).success).toBe(true);
    expect(schema.safeParse({ ok: false, error: { code: 'internal', message: '' } }).success).toBe(true);
    expect(schema.safeParse({ ok: true }).success).toBe(false);
    expect(schema.safeParse({ ok: false, value: 'a' }).success).toBe(false);
    expect(schema.safeParse('a').success).toBe(false);
  });
});

describe('everythingThatLeaves', () => {
  const leaving = everythingThatLeaves();
  const named = leaving.map(({ event, field }) => `${event} ${field}`);

  it('covers every message of a volunteer, down to the last field', () => {
    const events = new Set(leaving.map(({ event }) => event));
    const silent = ['round:leave', 'volunteer:forget', 'evaluation:next', 'evaluation:report'];
    expect([...events].sort()).toEqual(
      Object.keys(VOLUNTEER_REQUESTS)
        .filter((event) => !silent.includes(event))
        .sort(),
    );
    expect(named).toContain('volunteer:prove publicKey.x');
    expect(named).toContain('round:join device.adapter.description');
    expect(named).toContain('round:join proposal.verdicts.reason');
    expect(named).toContain('round:join data.examples');
    expect(named).toContain('lease:heartbeat progress.loss');
    expect(named).toContain('upload:begin targetTokens');
    expect(named).toContain('upload:chunk bytes');
  });

  it('names nothing twice and nothing that could hold rows', () => {
    expect(new Set(named).size).toBe(named.length);
    expect(named.filter((name) => /rows|prompt|completion|text/.test(name))).toEqual([]);
  });
});
