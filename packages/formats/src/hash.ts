// SHA-256, which names every blob.

/** SHA-256 of `bytes` as 64 hexadecimal digits. */
export async function sha256Hex(bytes: Uint8Array): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** SHA-256 of the UTF-8 bytes of `text`. */
export const sha256HexOfText = (text: string): Promise<string> => sha256Hex(new TextEncoder().encode(text));
