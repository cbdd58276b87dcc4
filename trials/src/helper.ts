// A process of trials/dist that does what a trial tells it by messages, one order at a time, and answers each.
import type { ChildProcess } from 'node:child_process';
import { forkBuilt, nextMessage } from './child.ts';

export class Helper<Order extends { readonly do: string }, Answer extends object> {
  readonly #child: ChildProcess;
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
    this.#child = forkBuilt(name);
  }

  /** Rejects when it fails at the order, or ends instead of answering. */
  async tell(order: Order): Promise<Exclude<Answer, { failed: string }>> {
    this.#child.send(order);
    const answer = (await nextMessage(this.#child)) as Answer;
    if ('failed' in answer) throw new Error(`${this.#name} failed at "${order.do}": ${String(answer.failed)}`);
    return answer as Exclude<Answer, { failed: string }>;
  }

  end(): void {
    if (this.#child.connected) this.#child.disconnect();
  }
}
