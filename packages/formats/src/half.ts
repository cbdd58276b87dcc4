// Half-precision numbers, widened exactly.
import { Float16Array } from '@petamoriken/float16';

/** IEEE binary16 bit patterns to float32. */
export function float16ToFloat32(bits: Uint16Array): Float32Array {
  return Float32Array.from(new Float16Array(bits.buffer as ArrayBuffer, bits.byteOffset, bits.length));
}

/** bfloat16 bit patterns to float32: the upper half of its bits. */
export function bfloat16ToFloat32(bits: Uint16Array): Float32Array {
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i += 1) wide[i] = (bits[i] ?? 0) << 16;
  return new Float32Array(wide.buffer);
}
