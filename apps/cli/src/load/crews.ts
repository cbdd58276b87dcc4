// The load processes as one: started, watched, asked for their reports. Knows nothing of volunteers.
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { CommandError } from '../command.ts';
import type { CrewReport, FromCrew, Status, ToCrew } from './messages.ts';
import type { LoadPlan } from './plan.ts';

/** How long a crew may take to say farewell to the server. */
const FAREWELL_MS = 30_000;

const entry = fileURLToPath(
  new URL(import.meta.url.endsWith('.ts') ? '../../dist/load-crew.js' : './load-crew.js', import.meta.url),
);

const NOBODY: Status = {
  arrived: 0,
  admitted: 0,
  honestAdmitted: 0,
  leased: 0,
  finished: 0,
  receipts: 0,
  errors: 0,
  version: null,
  runId: null,
};

export class Crews {
  readonly #children: ChildProcess[];
  readonly #statuses: Status[];
  readonly #reports = new Map<ChildProcess, CrewReport>();
  #failure: CommandError | null = null;
  #stopping = false;

  constructor(plan: LoadPlan, module = entry) {
    this.#statuses = Array.from({ length: plan.processes }, () => NOBODY);
    this.#children = this.#statuses.map((_, first) => {
      const child = fork(module, { serialization: 'advanced', execArgv: [] });
      child.on('message', (message: FromCrew) => {
        if (message.type === 'status') this.#statuses[first] = message.status;
        else this.#reports.set(child, message.report);
      });
      child.on('exit', (code, signal) => {
        if (this.#stopping) return;
        this.#failure ??= new CommandError(
          'load-process',
          `A load process ended by itself (${signal ?? `exit code ${code}`}). Its output is above; fewer volunteers a process (--processes) need less memory each.`,
        );
      });
      this.#say(child, { type: 'start', plan, first });
      return child;
    });
  }

  #say(child: ChildProcess, message: ToCrew): void {
    if (child.connected) child.send(message);
  }

  /** All processes together. Throws the CommandError 'load-process' once one has died. */
  status(): Status {
    if (this.#failure) throw this.#failure;
    const sum = (pick: (status: Status) => number) => this.#statuses.reduce((total, each) => total + pick(each), 0);
    const newest = this.#statuses.reduce((best, each) => ((each.version ?? -1) > (best.version ?? -1) ? each : best));
    return {
      arrived: sum(({ arrived }) => arrived),
      admitted: sum(({ admitted }) => admitted),
      honestAdmitted: sum(({ honestAdmitted }) => honestAdmitted),
      leased: sum(({ leased }) => leased),
      finished: sum(({ finished }) => finished),
      receipts: sum(({ receipts }) => receipts),
      errors: sum(({ errors }) => errors),
      version: newest.version,
      runId: newest.runId,
    };
  }

  measure(): void {
    for (const child of this.#children) this.#say(child, { type: 'measure' });
  }

  /** Ends all processes; resolves with their reports, fewer where one did not answer in time. */
  async stop(): Promise<CrewReport[]> {
    this.#stopping = true;
    await Promise.all(
      this.#children.map(
        (child) =>
          new Promise<void>((resolve) => {
            if (child.exitCode !== null || child.signalCode !== null) {
              resolve();
              return;
            }
            const timer = setTimeout(() => child.kill('SIGKILL'), FAREWELL_MS);
            child.once('exit', () => {
              clearTimeout(timer);
              resolve();
            });
            this.#say(child, { type: 'stop' });
          }),
      ),
    );
    return [...this.#reports.values()];
  }
}
