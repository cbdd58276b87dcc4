// The sending side of the ingest trial, a process of its own: many volunteers, each on its own socket with its own lease and
// its own bytes, and as many plain sockets to the sink. Told what to do by messages of the trial.
import { createHash } from 'node:crypto';
import { type Lease, NAMESPACES, type Receipt, type UploadBegin } from '@weft/protocol';
import { announcement, Peer, sendUpload, Volunteer } from '../peers.ts';

export type Order =
  | {
      readonly do: 'enter';
      readonly url: string;
      readonly runId: string;
      readonly rank: number;
      readonly count: number;
      readonly name: number;
    }
  | { readonly do: 'connect'; readonly sink: string }
  | {
      readonly do: 'send';
      readonly to: 'server' | 'sink';
      readonly from: number;
      readonly count: number;
      readonly atOnce: number;
    };
export type Answer =
  | { readonly done: Exclude<Order['do'], 'send'> }
  | {
      readonly done: 'send';
      readonly ms: number;
      readonly receipts: readonly Receipt[];
      readonly failures: readonly string[];
    }
  | { readonly failed: string };

interface Sender {
  readonly volunteer: Volunteer;
  readonly lease: Lease;
  readonly begin: UploadBegin;
}

const HEARTBEAT_MS = 10_000;
/** Sockets opened or leases asked for at the same time. */
const ENTER_AT_ONCE = 16;

let senders: Sender[] = [];
let sinks: Peer[] = [];
let update = new Uint8Array();

/** Start weights moved a little everywhere, so that every check has something to look at. */
function trained(start: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(start);
  const view = new DataView(bytes.buffer);
  const header = 8 + Number(view.getBigUint64(0, true));
  for (let at = header; at < bytes.length; at += 4) {
    view.setFloat32(at, view.getFloat32(at, true) + 1e-3 * Math.sin(at), true);
  }
  return bytes;
}

/** The update of one volunteer: the last number tells it from all others. */
function own(index: number): Uint8Array {
  const bytes = update.slice();
  new DataView(bytes.buffer).setFloat32(bytes.length - 4, (index + 1) * 2 ** -20, true);
  return bytes;
}

/** Runs `work` on 0 … count − 1, `atOnce` at a time. */
async function each(count: number, atOnce: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const one = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, count) }, one));
}

async function obey(order: Order): Promise<Answer> {
  switch (order.do) {
    case 'enter': {
      const { url, runId, rank, count, name } = order;
      const entered: Sender[] = [];
      await each(count, ENTER_AT_ONCE, async (index) => {
        const volunteer = await new Volunteer(url).enter(runId);
        const lease = await volunteer.lease(rank);
        if (update.length === 0) update = trained(await volunteer.start(lease));
        const bytes = own(name + index);
        const hash = createHash('sha256').update(bytes).digest('hex');
        entered[index] = { volunteer, lease, begin: announcement(lease, bytes, { sha256: hash }) };
      });
      senders = entered;
      setInterval(() => {
        // A lease that has delivered or is lost needs no heartbeat; what went wrong shows in its upload.
        for (const { volunteer, lease } of senders) volunteer.heartbeat(lease).catch(() => undefined);
      }, HEARTBEAT_MS);
      base = name;
      return { done: 'enter' };
    }
    case 'connect':
      for (const sink of sinks) sink.close();
      sinks = senders.map(() => new Peer(`${order.sink}${NAMESPACES.volunteer}`));
      await Promise.all(
        sinks.map((sink) => new Promise<void>((resolve) => sink.socket.once('connect', () => resolve()))),
      );
      return { done: 'connect' };
    case 'send': {
      const { to, from, count, atOnce } = order;
      const receipts: Receipt[] = [];
      const failures: string[] = [];
      const startedAt = performance.now();
      await each(count, atOnce, async (i) => {
        const sender = senders[from + i];
        const peer = to === 'server' ? sender?.volunteer : sinks[from + i];
        if (!sender || !peer) throw new Error(`There is no volunteer ${from + i}.`);
        try {
          receipts.push(await sendUpload(peer, sender.begin, own(base + from + i)));
        } catch (error) {
          failures.push(String(error));
        }
      });
      return { done: 'send', ms: performance.now() - startedAt, receipts, failures };
    }
  }
}

let base = 0;
process.on('message', (order: Order) => {
  obey(order).then(
    (answer) => process.send?.(answer),
    (error: unknown) => process.send?.({ failed: String(error) } satisfies Answer),
  );
});
process.on('disconnect', () => process.exit(0));
