// A notice to everybody in a room. Few get it at once; of many, so many a second, in slices that leave the event loop free.
// Each slice carries what is true when it goes out, so who comes late in the row misses nothing.
import type { Namespace } from 'socket.io';

export interface SweepRules {
  /** Rooms up to this size are told in one go. */
  readonly atOnce: number;
  /** Notices a second for news that change what clients do. */
  readonly urgentPerSecond: number;
  /** Notices a second for mere counts, which every heartbeat's answer carries as well. */
  readonly plainPerSecond: number;
}

export const DEFAULT_SWEEP: SweepRules = { atOnce: 250, urgentPerSecond: 2_500, plainPerSecond: 500 };

/** Between two slices. */
const SLICE_MS = 50;

type Payload = () => unknown;

export class Sweep {
  readonly #namespace: Namespace;
  readonly #room: string;
  readonly #event: string;
  readonly #payload: Payload;
  readonly #rules: SweepRules;
  readonly #onFailure: (error: unknown) => void;
  #left: string[] = [];
  #timer: NodeJS.Timeout | null = null;
  #urgent = false;
  /** News came while a sweep was under way: another follows. */
  #again: 'urgent' | 'plain' | null = null;

  constructor(
    target: { readonly namespace: Namespace; readonly room: string; readonly event: string; readonly payload: Payload },
    rules: SweepRules,
    onFailure: (error: unknown) => void,
  ) {
    this.#namespace = target.namespace;
    this.#room = target.room;
    this.#event = target.event;
    this.#payload = target.payload;
    this.#rules = rules;
    this.#onFailure = onFailure;
  }

  /** Tells everybody in the room, those who are being told already once more. */
  tell(urgent: boolean): void {
    const members = this.#namespace.adapter.rooms.get(this.#room);
    if (!members || members.size === 0) return;
    if (this.#timer === null) {
      if (members.size <= this.#rules.atOnce) {
        this.#namespace.to(this.#room).emit(this.#event, this.#payload());
        return;
      }
      this.#begin([...members], urgent);
    } else if (urgent && !this.#urgent) {
      // Mere counts make way for what matters.
      this.#begin([...members], true);
    } else if (this.#again !== 'urgent') this.#again = urgent ? 'urgent' : 'plain';
  }

  #begin(members: string[], urgent: boolean): void {
    this.#left = members;
    this.#urgent = urgent;
    this.#again = null;
    if (this.#timer === null) this.#slice();
  }

  #slice(): void {
    this.#timer = null;
    const perSecond = this.#urgent ? this.#rules.urgentPerSecond : this.#rules.plainPerSecond;
    const some = this.#left.splice(-Math.ceil((perSecond * SLICE_MS) / 1000));
    try {
      if (some.length > 0) this.#namespace.to(some).emit(this.#event, this.#payload());
    } catch (error) {
      this.#onFailure(error);
    }
    if (this.#left.length === 0 && this.#again === null) return;
    this.#timer = setTimeout(() => {
      if (this.#left.length > 0) {
        this.#slice();
        return;
      }
      const urgent = this.#again === 'urgent';
      this.#timer = null;
      this.tell(urgent);
    }, SLICE_MS);
  }

  close(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
    this.#left = [];
    this.#again = null;
  }
}
