// Half-precision numbers: float16 and bfloat16 widened exactly, and narrowed with one rounding, to nearest and ties to even.
import { Float16Array } from '@petamoriken/float16';

/** The value of each of the 65,536 bit patterns: a look-up is far faster than an element of Float16Array. */
let float16Values: Float32Array | null = null;

function float16Table(): Float32Array {
  if (float16Values) return float16Values;
  const patterns = Uint16Array.from({ length: 65_536 }, (_, pattern) => pattern);
  float16Values = Float32Array.from(new Float16Array(patterns.buffer));
  return float16Values;
}

/** IEEE binary16 bit patterns to float32. */
export function float16ToFloat32(bits: Uint16Array): Float32Array {
  const values = float16Table();
  const wide = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i += 1) wide[i] = values[bits[i] ?? 0] ?? 0;
  return wide;
}

/** bfloat16 bit patterns to float32: the upper half of its bits. */
export function bfloat16ToFloat32(bits: Uint16Array): Float32Array {
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i += 1) wide[i] = (bits[i] ?? 0) << 16;
  return new Float32Array(wide.buffer);
}

const float = new Float32Array(1);
const word = new Uint32Array(float.buffer);

/**
 * Float32 bits of a number rounded to odd, so that a second rounding sees whether anything was cut off (Boldo and Melquiond
 * 2008).
 */
function bitsRoundedToOdd(value: number): number {
  float[0] = value;
  const bits = word[0] ?? 0;
  const near = float[0] ?? 0;
  if (near === value || !Number.isFinite(value)) return bits;
  return (Math.abs(near) > Math.abs(value) ? bits - 1 : bits) | 1;
}

/** The float16 bit pattern nearest to a number; NaN stays NaN. From 65520 on it is infinity. */
export function float16Bits(value: number): number {
  if (Number.isNaN(value)) return 0x7e00;
  const bits = bitsRoundedToOdd(value);
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  // From 2⁻¹⁴ on: the exponent's bias becomes 15, and 13 bits of the fraction are rounded off.
  if (magnitude >= 0x38800000) return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  // Below: whole multiples of 2⁻²⁴, rounded by a sum that has no bits to spare for less than one.
  return sign | (Math.abs(value) * 2 ** 24 + 2 ** 52 - 2 ** 52);
}

/** The bfloat16 bit pattern nearest to a number; NaN stays NaN. Beyond the largest bfloat16 it is infinity. */
export function bfloat16Bits(value: number): number {
  const bits = bitsRoundedToOdd(value);
  if (Number.isNaN(value)) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}
