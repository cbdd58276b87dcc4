// NumPy in a process of its own, asked in lines of JSON.
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';

/** Beside the sources: a build folder holds only what is built. */
const SCRIPT = resolve(import.meta.dirname, '..', 'bench', 'numpy_peer.py');

export const INSTALL = `no Python with NumPy on OpenBLAS was found. Install it:
  Debian, Ubuntu   apt-get install python3-numpy libopenblas0
  anywhere         python3 -m pip install numpy
or name one: WEFT_PYTHON=/path/to/python3`;

export interface About {
  readonly numpy: string;
  readonly openblas: boolean;
  readonly threads: string;
}

/** A Python that has NumPy; null where there is none. */
function findPython(): string | null {
  const named = process.env.WEFT_PYTHON;
  for (const python of named ? [named] : ['/usr/bin/python3', 'python3']) {
    try {
      execFileSync(python, ['-c', 'import numpy'], { stdio: 'ignore' });
      return python;
    } catch {
      // no such program, or it has no NumPy: the next may
    }
  }
  return null;
}

export class Numpy {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #answers: AsyncIterator<string>;

  private constructor(python: string, threads: number) {
    const env = { ...process.env, OPENBLAS_NUM_THREADS: String(threads) };
    this.#process = spawn(python, [SCRIPT], { env, stdio: 'pipe' });
    this.#process.stderr.pipe(process.stderr);
    this.#answers = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  }

  /** Null where there is no Python with NumPy on OpenBLAS. */
  static async start(threads: number): Promise<{ numpy: Numpy; about: About } | null> {
    const python = findPython();
    if (!python) return null;
    const numpy = new Numpy(python, threads);
    const about = await numpy.ask<About>({ op: 'about' });
    if (about.openblas) return { numpy, about };
    numpy.close();
    return null;
  }

  /** Rejects with Error when the process ends instead of answering. */
  async ask<Answer = Record<string, never>>(question: Record<string, unknown>): Promise<Answer> {
    this.#process.stdin.write(`${JSON.stringify(question)}\n`);
    const { value, done } = await this.#answers.next();
    if (done) throw new Error(`NumPy ended at ${question.op}; what it said stands above.`);
    return JSON.parse(value) as Answer;
  }

  close(): void {
    this.#process.stdin.end();
  }
}
