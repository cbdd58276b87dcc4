// A link as a QR code, for the phone or laptop beside you. The encoder is loaded when the first one is shown.
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';

export function QrCode({ text }: { text: string }) {
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
