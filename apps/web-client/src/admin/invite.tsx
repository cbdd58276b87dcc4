// Nobody is here: the link that brings volunteers, as text and as a QR code for the phone or laptop beside you.
import type { RunView } from '@weft/protocol';
import { Copyable } from '../shared/note.tsx';
import { QrCode } from './qr-code.tsx';

/** Where volunteers of this run go. */
export const inviteLink = (runId: string): string => `${location.origin}/?run=${runId}`;

export function Invite({ run }: { run: RunView }) {
  const link = inviteLink(run.runId);
  const secure = isSecureContext && location.hostname !== 'localhost' && location.hostname !== '127.0.0.1';
  return (
    <section class="invite" aria-label="Invite volunteers">
      <div>
        <h2>No volunteers are here yet</h2>
        <p>
          Send this link to people with a GPU and a current browser. Their tab shows what it costs and what leaves it
          before anything starts.
        </p>
        <Copyable text={link} label="Copy link" />
        {!secure && (
          <p class="small quiet">
            Browsers switch WebGPU off on plain HTTP from another device: this address works on this machine. For other
            devices serve the page over HTTPS.
          </p>
        )}
      </div>
      <QrCode text={link} />
    </section>
  );
}
