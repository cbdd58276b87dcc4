// Work nobody waits for, except the one who closes up.

export class Background {
  readonly #running = new Set<Promise<void>>();
  readonly #onFailure: (error: unknown) => void;

  constructor(onFailure: (error: unknown) => void) {
    this.#onFailure = onFailure;
  }

  run(work: () => Promise<void>): void {
    const running = work().catch(this.#onFailure);
    this.#running.add(running);
    void running.then(() => this.#running.delete(running));
  }

  /** Resolves when everything begun so far has ended. */
  async ended(): Promise<void> {
    await Promise.all(this.#running);
  }
}
