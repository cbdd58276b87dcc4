// Nobody is here: the link that brings volunteers, as text and as a QR code for the phone or laptop beside you.
import { useSignal } from '@preact/signals';
import type { RunView } from '@weft/protocol';
import { useEffect } from 'preact/hooks';
import { Copyable } from '../shared/note.tsx';

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

function QrCode({ text }: { text: string }) {
  const modules = useSignal<readonly (readonly boolean[])[] | null>(null);
  useEffect(() => {
    let gone = false;
    import('uqr').then(
      ({ encode }) => {
        if (!gone) modules.value = encode(text, { border: 2 }).data;
      },
      () => {
        // The link stands beside it; without the code the page is the same.
        modules.value = null;
      },
    );
    return () => {
      gone = true;
    };
  }, [text, modules]);
  const rows = modules.value;
  if (!rows) return <div class="qr" />;
  const path = rows.flatMap((row, y) => row.flatMap((on, x) => (on ? [`M${x} ${y}h1v1h-1z`] : []))).join('');
  return (
    <svg
      class="qr"
      viewBox={`0 0 ${rows.length} ${rows.length}`}
      role="img"
      aria-label="QR code of the invite link"
      shape-rendering="crispEdges"
    >
      <rect width="100%" height="100%" fill="#fff" />
      <path d={path} fill="#000" />
    </svg>
  );
}
