// The dashboard's errors in words. The server's own sentence comes first: it names the thing at fault and the remedy.
import { ProtocolError } from '@weft/protocol';
import type { Problem } from '../shared/note.tsx';

export type AdminProblem = Problem;

const REMEDIES: Partial<Record<ProtocolError['code'], string>> = {
  unauthorised: 'Copy the token from the line the server printed, without spaces around it.',
  'protocol-version': 'Reload this page.',
  'unknown-run': 'Choose a run from the list.',
};

export function describeAdminError(error: unknown): AdminProblem {
  const technical = error instanceof Error ? (error.stack ?? error.message) : String(error);
  if (error instanceof ProtocolError) {
    const remedy = REMEDIES[error.code] ?? null;
    return { tone: 'error', happened: error.message, kept: null, remedy, code: error.code, technical: error.message };
  }
  const happened = error instanceof Error ? error.message : String(error);
  if (/timeout|timed out/i.test(happened)) {
    return {
      tone: 'warning',
      happened: 'The server did not answer in time.',
      kept: 'The run goes on without this page.',
      remedy: 'Look whether the server is up, then try again.',
      code: 'timeout',
      technical,
    };
  }
  return {
    tone: 'error',
    happened,
    kept: 'The run goes on without this page.',
    remedy: 'Try again, or reload the page.',
    code: 'page',
    technical,
  };
}
