// The server's notices about one run, as a session takes them: those of other runs are left out.
import type { Lease, RoundView, RunView } from '@weft/protocol';
import type { NoticePayload, Transport } from './ports.ts';

export interface RunNotices {
  runId(): string | null;
  run(run: RunView): void;
  round(round: RoundView): void;
  granted(lease: Lease): void;
  revoked(notice: NoticePayload<'lease:revoked'>): void;
}

/** Returns the functions that end it. */
export const followRun = (transport: Transport, notices: RunNotices): (() => void)[] => [
  transport.onNotice('run:state', (run) => {
    if (run.runId === notices.runId()) notices.run(run);
  }),
  transport.onNotice('round:state', (round) => notices.round(round)),
  transport.onNotice('lease:granted', (lease) => notices.granted(lease)),
  transport.onNotice('lease:revoked', (notice) => notices.revoked(notice)),
];
