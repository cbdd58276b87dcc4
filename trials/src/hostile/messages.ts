// Messages that do not match their schemas, made from the schemas, and messages that do, out of their order or of somebody
// else's things.
import { ADMIN_REQUESTS, CHUNK_BYTES, NAMESPACES, PROTOCOL_VERSION, VOLUNTEER_REQUESTS } from '@weft/protocol';
import type { z } from 'zod';
import { announcement, Peer, sha256, Volunteer } from '../peers.ts';
import { ADMIN_TOKEN } from '../server-process.ts';
import { asked, type HostileCase, type Scene } from './case.ts';

const deep = (levels: number): unknown => JSON.parse('['.repeat(levels) + ']'.repeat(levels));
const polluted: unknown = JSON.parse('{"__proto__":{"ok":true},"constructor":{"prototype":{"ok":true}}}');

/** What is never a message. */
const NONSENSE: readonly (readonly [string, unknown])[] = [
  ['null', null],
  ['a number', 7],
  ['a string', 'text'],
  ['a huge string', 'x'.repeat(300_000)],
  ['a list', [1, 2]],
  ['bytes', new Uint8Array(1000)],
  // Deeper ones overflow Socket.IO's own client; frames.ts sends them as text.
  ['a list in a list, 1,000 deep', deep(1000)],
  ['keys of prototypes', polluted],
];

const WRONG: readonly unknown[] = [null, 'text', -1.5, [], {}];

/** One message of every kind, well-formed. */
function samples({ attacker, lease, good, runId }: Scene): Readonly<Record<string, unknown>> {
  return {
    'volunteer:hello': attacker.hello(runId),
    'volunteer:prove': attacker.proof('no challenge'),
    'round:join': attacker.joinPayload(1),
    'lease:heartbeat': {
      leaseId: lease.leaseId,
      hidden: false,
      paused: false,
      progress: { stage: 'training', step: 1, steps: 2, loss: 1, targetTokens: 1, tokensPerSecond: 1 },
    },
    'lease:release': { leaseId: 'none', reason: 'stopped' },
    'upload:begin': announcement(lease, good),
    'upload:chunk': { leaseId: lease.leaseId, offset: 0, bytes: good.subarray(0, 10) },
    'upload:commit': { leaseId: lease.leaseId, sha256: sha256(good) },
    'evaluation:report': { jobId: 'job', results: [{ task: 'rooms', loss: 1, targetTokens: 1, rows: 1 }] },
  };
}

/** The message with one field left out or of another type, for every field at every depth. */
function* spoiled(value: unknown, path: readonly string[] = []): Generator<readonly [string, (root: unknown) => void]> {
  if (value === null || typeof value !== 'object' || value instanceof Uint8Array) return;
  for (const [key, inner] of Object.entries(value)) {
    const where = [...path, key];
    yield [`without ${where.join('.')}`, (root) => spoil(root, path, key)];
    for (const wrong of WRONG) {
      yield [`with ${where.join('.')} ${JSON.stringify(wrong)}`, (root) => spoil(root, path, key, wrong)];
    }
    yield* spoiled(inner, where);
  }
}

/** Sets the field, or takes it out where there is no value. */
function spoil(root: unknown, path: readonly string[], key: string, value?: unknown): void {
  const holder = path.reduce((at, step) => at[step] as Record<string, unknown>, root as Record<string, unknown>);
  if (value === undefined) delete holder[key];
  else holder[key] = value;
}

const refuses = (schema: z.ZodType, payload: unknown): boolean => !schema.safeParse(payload).success;

/** Every way to spoil `sample` that its schema refuses. */
function* malformed(schema: z.ZodType, sample: unknown): Generator<readonly [string, unknown]> {
  for (const [name, payload] of NONSENSE) if (refuses(schema, payload)) yield [name, payload];
  for (const [name, change] of spoiled(sample)) {
    const payload: unknown = structuredClone(sample);
    change(payload);
    if (refuses(schema, payload)) yield [name, payload];
  }
}

export function messageCases(scene: Scene): HostileCase[] {
  return [...schemaCases(scene), ...orderCases(scene), ...adminCases()];
}

function* schemaCases(scene: Scene): Generator<HostileCase> {
  const known = samples(scene);
  for (const [event, { payload: schema }] of Object.entries(VOLUNTEER_REQUESTS)) {
    for (const [name, payload] of malformed(schema, known[event])) {
      const hello = event === 'volunteer:hello';
      yield {
        kind: 'message',
        name: `${event}: ${name}`,
        // A hello without a version is told about versions before anything else is read.
        expected: hello ? ['bad-message', 'protocol-version'] : ['bad-message'],
        run: ({ attacker }) => asked(attacker, event, payload),
      };
    }
  }
  for (const event of [
    'round:steal',
    'toString',
    '__proto__',
    'constructor',
    'hasOwnProperty',
    '',
    'x'.repeat(100_000),
  ]) {
    yield {
      kind: 'message',
      name: `an unknown message: ${event.slice(0, 20)}`,
      expected: ['unknown-event'],
      run: ({ attacker }) => asked(attacker, event, {}),
    };
  }
  yield {
    kind: 'message',
    name: 'no payload',
    expected: ['bad-message'],
    run: ({ attacker }) => asked(attacker, 'upload:commit'),
  };
  yield {
    kind: 'message',
    name: 'nine payloads',
    expected: ['bad-message'],
    run: ({ attacker }) => asked(attacker, 'upload:commit', 1, 2, 3, 4, 5, 6, 7, 8, 9),
  };
}

const once = async (url: string, work: (stranger: Volunteer) => Promise<string>): Promise<string> => {
  const stranger = new Volunteer(url);
  try {
    return await work(stranger);
  } finally {
    stranger.close();
  }
};

function* orderCases(scene: Scene): Generator<HostileCase> {
  const known = samples(scene);
  const message = (name: string, expected: readonly string[], run: HostileCase['run']): HostileCase => ({
    kind: 'message',
    name,
    expected,
    run,
  });
  for (const [event, { payload: schema }] of Object.entries(VOLUNTEER_REQUESTS)) {
    if (event === 'volunteer:hello') continue;
    const payload = known[event] ?? {};
    if (refuses(schema, payload)) continue;
    yield message(`${event} before hello`, ['out-of-order'], ({ url }) =>
      once(url, (stranger) => asked(stranger, event, payload)),
    );
  }
  for (const version of [PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1, 0, -1, 1e9, '2', null]) {
    yield message(`hello of version ${version}`, ['protocol-version'], ({ url, runId }) =>
      once(url, (stranger) =>
        asked(stranger, 'volunteer:hello', { ...stranger.hello(runId), protocolVersion: version }),
      ),
    );
  }
  yield message('hello twice', ['out-of-order'], ({ attacker, runId }) =>
    asked(attacker, 'volunteer:hello', attacker.hello(runId)),
  );
  yield message('hello for another run', ['unknown-run'], ({ url }) =>
    once(url, (stranger) => asked(stranger, 'volunteer:hello', stranger.hello('no-such-run'))),
  );
  yield message('hello with a guessed token', ['unauthorised'], ({ url, runId }) =>
    once(url, (stranger) => asked(stranger, 'volunteer:hello', { ...stranger.hello(runId), operatorToken: 'guess' })),
  );
  const proving =
    (proof: (stranger: Volunteer, scene: Scene, challenge: string) => unknown): HostileCase['run'] =>
    (at) =>
      once(at.url, async (stranger) => {
        const { challenge } = await stranger.request('volunteer:hello', stranger.hello(at.runId));
        return asked(stranger, 'volunteer:prove', proof(stranger, at, challenge));
      });
  yield message(
    'a key that is no point of the curve',
    ['bad-signature', 'bad-message'],
    proving((stranger, _at, challenge) => ({
      ...stranger.proof(challenge),
      publicKey: { ...stranger.publicKey, y: 'A'.repeat(43) },
    })),
  );
  for (const [name, signature] of [
    ['an empty signature', ''],
    ['a short signature', 'AAAA'],
    ['a signature of zeros', 'A'.repeat(86)],
    ['a signature that is no base64', '\u0000*'.repeat(43)],
  ] as const) {
    yield message(
      name,
      ['bad-signature'],
      proving(({ publicKey }) => ({ publicKey, signature })),
    );
  }
  yield message(
    'a signature of another challenge',
    ['bad-signature'],
    proving((stranger) => stranger.proof('another challenge')),
  );
  yield message(
    'somebody else’s key with one’s own signature',
    ['bad-signature'],
    proving((stranger, { bystander }, challenge) => ({
      publicKey: bystander.publicKey,
      signature: stranger.sign(challenge),
    })),
  );
  yield message('a proof given twice', ['out-of-order'], ({ url, runId }) =>
    once(url, async (stranger) => {
      const { challenge } = await stranger.request('volunteer:hello', stranger.hello(runId));
      await stranger.request('volunteer:prove', stranger.proof(challenge));
      return asked(stranger, 'volunteer:prove', stranger.proof(challenge));
    }),
  );
  yield message('a proof replayed on another connection', ['bad-signature'], ({ url, runId }) =>
    once(url, async (stranger) => {
      const { challenge } = await stranger.request('volunteer:hello', stranger.hello(runId));
      return once(url, async (second) => {
        await second.request('volunteer:hello', second.hello(runId));
        return asked(second, 'volunteer:prove', stranger.proof(challenge));
      });
    }),
  );
  for (const rank of [2, 3, 4096]) {
    yield message(`a wish for rank ${rank}`, ['rank-refused'], ({ bystander }) =>
      asked(bystander, 'round:join', bystander.joinPayload(rank)),
    );
  }
  yield message('a wish for a task that is not there', ['unknown-task'], ({ bystander }) =>
    asked(bystander, 'round:join', { ...bystander.joinPayload(1), data: { kind: 'task', task: 'astronomy' } }),
  );
  yield message('own data where none is taken', ['own-data-refused'], ({ bystander }) =>
    asked(bystander, 'round:join', { ...bystander.joinPayload(1), data: { kind: 'own', consent: true, examples: 5 } }),
  );
  for (const event of ['evaluation:next', 'evaluation:report']) {
    yield message(`${event} of a volunteer`, ['evaluation-refused'], ({ attacker }) =>
      asked(attacker, event, known[event] ?? {}),
    );
  }
  yield* leaseCases(message);
}

function* leaseCases(
  message: (name: string, expected: readonly string[], run: HostileCase['run']) => HostileCase,
): Generator<HostileCase> {
  const somebodys = ['unknown-lease'];
  for (const [whose, leaseOf] of [
    ['somebody else’s lease', (scene: Scene) => scene.victimLease],
    ['no lease at all', (scene: Scene) => ({ ...scene.lease, leaseId: 'nobodys' })],
  ] as const) {
    yield message(`an upload for ${whose}`, somebodys, (scene) =>
      asked(scene.attacker, 'upload:begin', announcement(leaseOf(scene), scene.good)),
    );
    yield message(`a chunk for ${whose}`, somebodys, (scene) =>
      asked(scene.attacker, 'upload:chunk', { leaseId: leaseOf(scene).leaseId, offset: 0, bytes: new Uint8Array(10) }),
    );
    yield message(`a commit for ${whose}`, somebodys, (scene) =>
      asked(scene.attacker, 'upload:commit', { leaseId: leaseOf(scene).leaseId, sha256: sha256(scene.good) }),
    );
    yield message(`a heartbeat for ${whose}`, somebodys, (scene) =>
      asked(scene.attacker, 'lease:heartbeat', {
        ...(samples(scene)['lease:heartbeat'] as object),
        leaseId: leaseOf(scene).leaseId,
      }),
    );
    // Giving back what one has not got is no error, and must do nothing: the victim delivers in the end.
    yield message(`giving back ${whose}`, ['accepted'], (scene) =>
      asked(scene.attacker, 'lease:release', { leaseId: leaseOf(scene).leaseId, reason: 'stopped' }),
    );
  }
  const begun = async ({ attacker, lease, good }: Scene, event: string, payload: object): Promise<string> => {
    await attacker.request('upload:begin', announcement(lease, good));
    return asked(attacker, event, { leaseId: lease.leaseId, ...payload });
  };
  for (const offset of [1, 100, CHUNK_BYTES, Number.MAX_SAFE_INTEGER]) {
    yield message(`a chunk at byte ${offset} of a new upload`, ['upload-offset'], (scene) =>
      begun(scene, 'upload:chunk', { offset, bytes: new Uint8Array(10) }),
    );
  }
  yield message('a chunk longer than the upload', ['upload-too-large'], (scene) =>
    begun(scene, 'upload:chunk', { offset: 0, bytes: new Uint8Array(scene.good.length + 1) }),
  );
  yield message('a commit before all bytes are there', ['upload-offset'], (scene) =>
    begun(scene, 'upload:commit', { sha256: sha256(scene.good) }),
  );
  yield message('a commit of another hash', ['upload-offset'], (scene) =>
    begun(scene, 'upload:commit', { sha256: '0'.repeat(64) }),
  );
  const claims: readonly (readonly [string, Record<string, unknown>, string])[] = [
    ['another run', { runHash: '0'.repeat(64) }, 'upload-run'],
    ['another start', { startHash: '0'.repeat(64) }, 'upload-start'],
    ['another rank', { rank: 4 }, 'upload-rank'],
    ['rank 4096', { rank: 4096 }, 'upload-rank'],
    ['a byte too many', { bytes: 10_000_000 }, 'upload-too-large'],
    ['2⁵³ − 1 bytes', { bytes: Number.MAX_SAFE_INTEGER }, 'upload-too-large'],
    ['10⁹ tokens', { targetTokens: 1e9 }, 'upload-tokens'],
    ['2⁵³ − 1 tokens', { targetTokens: Number.MAX_SAFE_INTEGER }, 'upload-tokens'],
    ['10⁹ examples', { examples: 1e9 }, 'upload-tokens'],
    ['10⁹ steps', { steps: 1e9 }, 'upload-tokens'],
    ['more tokens than its examples hold', { examples: 1, targetTokens: 65 }, 'upload-tokens'],
    ['more examples than its steps hold', { steps: 1, examples: 5 }, 'upload-tokens'],
    ['1e999 tokens', { targetTokens: Number.POSITIVE_INFINITY }, 'bad-message'],
    ['a loss that is no number', { lastLoss: Number.NaN }, 'bad-message'],
    ['a path for a lease', { leaseId: '../../../etc/passwd' }, 'bad-message'],
  ];
  for (const [name, claim, code] of claims) {
    yield message(`an announcement of ${name}`, [code], ({ attacker, lease, good }) =>
      asked(attacker, 'upload:begin', { ...announcement(lease, good), ...claim }),
    );
  }
}

function* adminCases(): Generator<HostileCase> {
  for (const [name, auth, code] of [
    ['no handshake', {}, 'protocol-version'],
    ['a guessed token', { protocolVersion: PROTOCOL_VERSION, token: 'guess' }, 'unauthorised'],
    ['an empty token', { protocolVersion: PROTOCOL_VERSION, token: '' }, 'unauthorised'],
    ['a token that is no string', { protocolVersion: PROTOCOL_VERSION, token: { $ne: '' } }, 'bad-message'],
    ['a huge token', { protocolVersion: PROTOCOL_VERSION, token: 'x'.repeat(100_000) }, 'bad-message'],
    ['the version before', { protocolVersion: PROTOCOL_VERSION - 1, token: ADMIN_TOKEN }, 'protocol-version'],
  ] as const) {
    for (const event of ['admin:overview', 'admin:stop']) {
      yield {
        kind: 'message',
        name: `${event} with ${name}`,
        expected: [code, 'unauthorised'],
        run: async ({ url, runId }) => {
          const peer = new Peer(`${url}${NAMESPACES.admin}`, { auth });
          try {
            return await asked(peer, event, { runId });
          } finally {
            peer.close();
          }
        },
      };
    }
  }
  for (const [event, { payload: schema }] of Object.entries(ADMIN_REQUESTS)) {
    for (const [name, payload] of NONSENSE.filter(([, nonsense]) => refuses(schema, nonsense))) {
      yield {
        kind: 'message',
        name: `${event}: ${name}`,
        expected: ['bad-message'],
        run: ({ admin }) => asked(admin, event, payload),
      };
    }
  }
  for (const event of ['admin:watch', 'admin:start', 'admin:pause', 'admin:stop', 'admin:close-round']) {
    yield {
      kind: 'message',
      name: `${event} of a run that is not there`,
      expected: ['unknown-run'],
      run: ({ admin }) => asked(admin, event, { runId: 'none' }),
    };
  }
  for (const settings of [{ ranks: [4, 2] }, { ranks: [] }, { goal: -1 }, { learningRate: 'fast' }, { tasks: 'all' }]) {
    yield {
      kind: 'message',
      name: `a run of ${JSON.stringify(settings)}`,
      expected: ['bad-message'],
      run: ({ admin }) => asked(admin, 'admin:create', { ...RUN, ...settings }),
    };
  }
  for (const settings of [{ tasks: ['astronomy'] }, { ranks: [1, 500] }, { sequenceLength: 4096 }]) {
    yield {
      kind: 'message',
      name: `a run of ${JSON.stringify(settings)}`,
      expected: ['bad-settings'],
      run: ({ admin }) => asked(admin, 'admin:create', { ...RUN, ...settings }),
    };
  }
}

const RUN = { name: 'Hostile', purpose: 'Be refused.', operator: 'the trial', ranks: [1], tasks: ['rooms'] };
