// What `weft load` is asked for, checked and in one piece of plain data: it goes to every load process as it is.
import { UsageError } from '../command.ts';
import { parseServerAddress } from '../node-volunteer/server-address.ts';

/** Ways to misbehave. What each does on the wire: misbehaviour.ts. */
export const MISBEHAVIOURS = [
  'drop',
  'stall',
  'duplicate',
  'wrong-hash',
  'oversize',
  'nan',
  'norm',
  'silent',
  'reconnect',
  'slow-reader',
  'half-open',
] as const;
export type Misbehaviour = (typeof MISBEHAVIOURS)[number];

/** Misbehaviours that act on the WebSocket below the messages. */
const NEEDS_WEBSOCKET: readonly Misbehaviour[] = ['slow-reader', 'half-open'];

export type LoadTransport = 'websocket' | 'polling';

export interface LoadPlan {
  /** Such as `http://127.0.0.1:8080`. */
  readonly origin: string;
  readonly runId: string | null;
  readonly volunteers: number;
  readonly processes: number;
  /** Seconds over which the volunteers arrive. */
  readonly ramp: number;
  /** Ranks the volunteers propose, with their shares; null: every rank of the run alike. */
  readonly ranks: readonly Share<number>[] | null;
  /** Seconds of training, from the shortest to the longest. */
  readonly think: readonly [number, number];
  readonly misbehave: readonly Share<Misbehaviour>[];
  readonly transport: LoadTransport;
  readonly seed: number;
}

export interface Share<T> {
  readonly value: T;
  readonly share: number;
}

/** Throws UsageError unless the address is of this machine: what this tool does to a server, only its owner may ask for. */
export function loopbackOrigin(text: string): { origin: string; runId: string | null } {
  const address = parseServerAddress(text);
  const { hostname } = new URL(address.origin);
  if (hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d{1,3}){3}$/.test(hostname)) return address;
  throw new UsageError(
    `weft load loads servers of this machine only (localhost, 127.0.0.1, [::1]), not ${hostname}. Run it beside the server.`,
  );
}

/** `1:3,2:1` — rank 1 three times as often as rank 2. `all` or undefined: null. */
export function parseRanks(text: string | undefined): readonly Share<number>[] | null {
  if (text === undefined) return null;
  return text.split(',').map((part) => {
    const [rank = '', share = '1'] = part.split(':');
    const parsed = { value: Number(rank), share: Number(share) };
    if (Number.isInteger(parsed.value) && parsed.value > 0 && parsed.share > 0) return parsed;
    throw new UsageError(`--ranks: "${part}" is no RANK or RANK:SHARE, such as 4 or 4:2.`);
  });
}

/** `drop=0.05,nan=0.01` — shares of all volunteers, together at most 1. */
export function parseMisbehaviour(text: string | undefined): readonly Share<Misbehaviour>[] {
  if (text === undefined || text === '') return [];
  const shares = text.split(',').map((part) => {
    const [name = '', amount = ''] = part.split('=');
    const value = MISBEHAVIOURS.find((kind) => kind === name.trim());
    const share = Number(amount);
    if (value && amount !== '' && share >= 0 && share <= 1) return { value, share };
    throw new UsageError(
      `--misbehave: "${part}" is no KIND=SHARE with a share from 0 to 1. Kinds: ${MISBEHAVIOURS.join(', ')}.`,
    );
  });
  const sum = shares.reduce((total, { share }) => total + share, 0);
  if (sum > 1 + 1e-9) throw new UsageError(`--misbehave: the shares add up to ${sum}; 1 is everybody.`);
  return shares;
}

/** `2` or `2-5` seconds. */
export function parseThink(text: string): readonly [number, number] {
  const [shortest = '', longest = shortest] = text.split('-');
  const range = [Number(shortest), Number(longest)] as const;
  if (shortest !== '' && range[0] >= 0 && range[1] >= range[0]) return range;
  throw new UsageError(`--think: "${text}" is no number of seconds or range such as 2-5.`);
}

export function checkPlan(plan: LoadPlan): LoadPlan {
  const odd = plan.misbehave.find(({ value }) => NEEDS_WEBSOCKET.includes(value));
  if (odd && plan.transport !== 'websocket') {
    throw new UsageError(`--misbehave ${odd.value} works on WebSockets; leave --transport out.`);
  }
  return plan;
}

/** Which misbehaviour volunteer `index` of the plan has; null for an honest one. The shares are spread evenly. */
export function misbehaviourOf({ misbehave }: LoadPlan, index: number): Misbehaviour | null {
  let place = evenly(index);
  for (const { value, share } of misbehave) {
    if (place < share) return value;
    place -= share;
  }
  return null;
}

/** The rank volunteer `index` proposes: of the plan's shares, else of the run's ranks by turns. */
export function rankOfVolunteer({ ranks }: LoadPlan, index: number, ofRun: readonly number[]): number | undefined {
  if (ranks === null) return ofRun[index % ofRun.length];
  const total = ranks.reduce((sum, { share }) => sum + share, 0);
  let place = evenly(index) * total;
  for (const { value, share } of ranks) {
    if (place < share) return value;
    place -= share;
  }
  return ranks.at(-1)?.value;
}

/** The van der Corput sequence (base 2): any run of indices covers [0, 1) evenly. */
function evenly(index: number): number {
  let value = 0;
  let half = 0.5;
  for (let rest = index; rest > 0; rest = Math.floor(rest / 2), half /= 2) value += (rest % 2) * half;
  return value;
}
