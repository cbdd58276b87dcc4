// Frames that are no messages: what engine.io and Socket.IO themselves have to survive. No typed error can answer a frame that
// names no request, so the right end is a closed line, or nothing at all, with the server there for the next one.

import { once } from 'node:events';
import { NAMESPACES } from '@weft/protocol';
import { WebSocket } from 'ws';
import type { HostileCase, Outcome, Scene } from './case.ts';

/** A line that stays open this long after a frame has ignored it. */
const IGNORED_MS = 300;
const OPEN_MS = 5_000;

const within = <T>(work: Promise<T>, ms: number): Promise<T | null> =>
  Promise.race([work, new Promise<null>((resolve) => setTimeout(() => resolve(null), ms).unref())]);

async function raw(url: string): Promise<WebSocket> {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`);
  // What goes wrong shows in how it closes.
  socket.on('error', () => undefined);
  if (!(await within(once(socket, 'open'), OPEN_MS))) throw new Error('The server opened no line.');
  return socket;
}

/** Sends frames on a line that has, or has not, entered a namespace. */
async function sent(url: string, frames: readonly (string | Uint8Array)[], namespace: string | null): Promise<Outcome> {
  const socket = await raw(url);
  const closed = once(socket, 'close');
  try {
    if (namespace) {
      const entered = new Promise<void>((resolve) => {
        socket.on('message', (data) => {
          if (String(data).startsWith(`40${namespace},`)) resolve();
        });
      });
      socket.send(`40${namespace},`);
      if (
        !(await within(
          entered.then(() => true),
          OPEN_MS,
        ))
      )
        throw new Error('The server let nobody in.');
    }
    let refused = false;
    socket.on('message', (data) => {
      if (String(data).startsWith('44')) refused = true;
    });
    for (const frame of frames) socket.send(frame);
    if (await within(closed, IGNORED_MS)) return 'closed';
    return refused ? 'refused' : 'ignored';
  } finally {
    socket.terminate();
  }
}

const V = NAMESPACES.volunteer;
const SURVIVED = ['closed', 'ignored', 'refused'];

/** Frames by what they are; the second: whether the namespace has been entered before. */
const FRAMES: readonly (readonly [string, boolean, readonly (string | Uint8Array)[]])[] = [
  ['an empty frame', false, ['']],
  ['a packet of no type', false, ['x']],
  ['a packet of type 9', false, ['9']],
  ['an unsolicited pong', false, ['3probe']],
  ['an upgrade of what needs none', false, ['5']],
  ['a message of nothing', false, ['4']],
  ['a message of no type', false, ['4x']],
  ['a Socket.IO packet of type 9', false, ['49']],
  ['an event outside a namespace', false, ['42["volunteer:hello",{}]']],
  ['an event in a namespace not entered', false, [`42${V},0["volunteer:hello",{}]`]],
  ['a namespace that is not there', false, ['40/nobody,']],
  ['a namespace with a path', false, ['40/../../admin,']],
  ['a thousand namespaces', false, Array.from({ length: 1000 }, (_, i) => `40/n${i},`)],
  ['a binary frame nobody announced', false, [new Uint8Array(1000)]],
  ['broken JSON', true, [`42${V},0["volunteer:hello",`]],
  ['an event without a name', true, [`42${V},0[]`]],
  ['an event whose name is a number', true, [`42${V},0[1]`]],
  ['an event whose name is null', true, [`42${V},0[null]`]],
  ['an event that is an object', true, [`42${V},0{"a":1}`]],
  ['an event called disconnect', true, [`42${V},0["disconnect","now"]`]],
  ['an event called connect_error', true, [`42${V},0["connect_error"]`]],
  ['an event called newListener', true, [`42${V},0["newListener"]`]],
  ['an acknowledgement nobody waits for', true, [`43${V},999[]`]],
  ['an acknowledgement that is no list', true, [`43${V},1{}`]],
  ['an acknowledgement with a huge number', true, [`42${V},${'9'.repeat(400)}["round:leave",{}]`]],
  ['a name of 400 kB', true, [`42${V},0["${'x'.repeat(400_000)}"]`]],
  ['lists 100,000 deep', true, [`42${V},0["round:leave",${'['.repeat(100_000)}${']'.repeat(100_000)}]`]],
  ['objects 50,000 deep', true, [`42${V},0["round:leave",${'{"a":'.repeat(50_000)}1${'}'.repeat(50_000)}]`]],
  ['keys of prototypes', true, [`42${V},0["__proto__",{"__proto__":{"ok":true},"constructor":{"prototype":{}}}]`]],
  ['twenty arguments', true, [`42${V},["round:leave"${',1'.repeat(20)}]`]],
  ['a hundred thousand arguments', true, [`42${V},["round:leave"${',1'.repeat(100_000)}]`]],
  ['a quarter of a million arguments', true, [`42${V},["round:leave"${',1'.repeat(250_000)}]`]],
  ['as many in an acknowledgement', true, [`43${V},1[1${',1'.repeat(250_000)}]`]],
  ['no acknowledgement asked for', true, [`42${V},["upload:commit",{}]`]],
  ['a frame over the limit', true, [`42${V},0["round:leave","${'x'.repeat(600_000)}"]`]],
  ['a binary frame over the limit', true, [new Uint8Array(600_000)]],
  [
    'a binary event and then none of its bytes',
    true,
    [`451-${V},0["upload:chunk",{"_placeholder":true,"num":0}]`, `42${V},["round:leave",{}]`],
  ],
  [
    'a binary event with a number of its own',
    true,
    [`451-${V},0["upload:chunk",{"_placeholder":true,"num":7}]`, new Uint8Array(8)],
  ],
  [
    'a binary event with a placeholder that is text',
    true,
    [`451-${V},0["upload:chunk",{"_placeholder":true,"num":"splice"}]`, new Uint8Array(8)],
  ],
  ['a binary event with ten million parts', true, [`4510000000-${V},0["upload:chunk",{}]`, new Uint8Array(8)]],
  [
    'a binary event with a part too many',
    true,
    [`451-${V},0["upload:chunk",{}]`, new Uint8Array(8), new Uint8Array(8)],
  ],
  ['a binary event of no parts', true, [`450-${V},0["upload:chunk",{}]`]],
  ['a binary event whose parts are no number', true, [`45x-${V},0["upload:chunk",{}]`]],
  ['entering twice', true, [`40${V},`, `40${V},`]],
  ['leaving and speaking on', true, [`41${V},`, `42${V},0["round:leave",{}]`]],
];

/** Requests to the transport itself; engine.io answers each with its own code. */
const POLLS: readonly (readonly [string, string, RequestInit])[] = [
  ['an older engine.io', 'EIO=3&transport=polling', {}],
  ['no engine.io at all', 'transport=polling', {}],
  ['a transport that is not there', 'EIO=4&transport=pigeon', {}],
  ['a session that is not there', 'EIO=4&transport=polling&sid=none', {}],
  ['a session of the prototype', 'EIO=4&transport=polling&sid=__proto__', {}],
  ['a session that is posted to before it is opened', 'EIO=4&transport=polling', { method: 'POST', body: '40' }],
  ['a handshake by DELETE', 'EIO=4&transport=polling', { method: 'DELETE' }],
  ['parameters twice', 'EIO=4&EIO=4&transport=polling&transport=websocket', {}],
];

async function polled(url: string, query: string, init: RequestInit): Promise<Outcome> {
  const reply = await fetch(`${url}/socket.io/?${query}`, { ...init, signal: AbortSignal.timeout(OPEN_MS) });
  await reply.text();
  return reply.status >= 400 && reply.status < 500 ? 'refused' : `status ${reply.status}`;
}

/** Posts a body to a polling session of its own. */
async function posted(url: string, body: string | Uint8Array): Promise<Outcome> {
  const address = `${url}/socket.io/?EIO=4&transport=polling`;
  const opened = /"sid":"([^"]+)"/.exec(await (await fetch(address)).text())?.[1];
  const init = { method: 'POST', headers: { 'content-type': 'text/plain' }, signal: AbortSignal.timeout(OPEN_MS) };
  try {
    const reply = await fetch(`${address}&sid=${opened}`, { ...init, body: body as BodyInit });
    await reply.text();
    return reply.status >= 400 && reply.status < 500
      ? 'refused'
      : reply.status === 200
        ? 'ignored'
        : `status ${reply.status}`;
  } catch (error) {
    // A body over the limit ends its connection in the middle.
    if (error instanceof TypeError) return 'closed';
    throw error;
  }
}

const BODIES: readonly (readonly [string, string | Uint8Array])[] = [
  ['an empty body', ''],
  ['a body that is no packet', 'hello'],
  ['a thousand packets that are none', Array(1000).fill('x').join('\u001e')],
  ['a binary packet that is no base64', 'b!!!!'],
  ['a body over the limit', 'x'.repeat(2_000_000)],
];

export function frameCases(): HostileCase[] {
  const frame = (name: string, run: (scene: Scene) => Promise<Outcome>): HostileCase => ({
    kind: 'frame',
    name,
    expected: SURVIVED,
    run,
  });
  return [
    ...FRAMES.map(([name, entered, frames]) => frame(name, ({ url }) => sent(url, frames, entered ? V : null))),
    ...POLLS.map(([name, query, init]) => frame(name, ({ url }) => polled(url, query, init))),
    ...BODIES.map(([name, body]) => frame(`polling: ${name}`, ({ url }) => posted(url, body))),
  ];
}
