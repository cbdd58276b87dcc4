// What a volunteer may ask of its work outside a session, such as from a command: take an upload back, be forgotten. One
// handshake, one request.
import type { ForgetReply } from '@weft/protocol';
import { Line, type LineOptions } from './line.ts';

/** Takes back an upload that is not merged yet; resolves with the instant it was. Rejects with the server's refusal. */
export const withdrawUpload = (options: LineOptions, receiptId: string, signal: AbortSignal): Promise<string> =>
  withLine(options, signal, async (line) => (await line.request('upload:withdraw', { receiptId }, signal)).withdrawnAt);

/** Has the server forget this key in its run. Rejects with the server's refusal. */
export const forgetVolunteer = (options: LineOptions, signal: AbortSignal): Promise<ForgetReply> =>
  withLine(options, signal, (line) => line.request('volunteer:forget', {}, signal));

async function withLine<T>(options: LineOptions, signal: AbortSignal, work: (line: Line) => Promise<T>): Promise<T> {
  const line = new Line(options, { admitted: () => undefined, interrupted: () => undefined, refused: () => undefined });
  try {
    await line.admitted(signal);
    return await work(line);
  } finally {
    line.close();
    options.transport.close();
  }
}
