// IEEE 754 half precision by bits: what the GPU's `unpack2x16float` reads. Not a general number library; this package has
// no dependency that would bring one, and a conversion a weight must be fast.

/** The largest finite half. */
export const LARGEST_HALF = 65_504;

const INFINITY_BITS = 0x7f80_0000;
const SMALLEST_NORMAL_BITS = 0x3880_0000;

/**
 * The half nearest to a float32, ties to even, both as bits. Beyond the range it is infinity, from 65,520 on; NaN stays a
 * NaN, without its payload.
 */
export function halfFromFloatBits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fff_ffff;
  if (magnitude >= INFINITY_BITS) return sign | (magnitude > INFINITY_BITS ? 0x7e00 : 0x7c00);
  if (magnitude >= SMALLEST_NORMAL_BITS) {
    // Exponents differ in bias by 112; a carry out of the fraction rightly raises the exponent.
    const rounded = (magnitude - (112 << 23) + 0xfff + ((magnitude >>> 13) & 1)) >>> 13;
    return sign | Math.min(rounded, 0x7c00);
  }
  const exponent = magnitude >>> 23;
  // Less than half of the smallest subnormal, 2⁻²⁴.
  if (exponent < 102) return sign;
  const shift = 126 - exponent;
  const fraction = (magnitude & 0x7f_ffff) | 0x80_0000;
  const whole = fraction >>> shift;
  const rest = fraction & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return sign | (whole + (rest > half || (rest === half && (whole & 1) === 1) ? 1 : 0));
}

const floats = new Float32Array(1);
const words = new Uint32Array(floats.buffer);

/** {@link halfFromFloatBits} of a number, rounded to float32 first. */
export function halfBits(value: number): number {
  floats[0] = value;
  return halfFromFloatBits(words[0] ?? 0);
}

/** The number that 16 bits stand for, exact in float32. */
export function halfValue(bits: number): number {
  const sign = (bits & 0x8000) === 0 ? 1 : -1;
  const exponent = (bits >>> 10) & 31;
  const fraction = bits & 0x3ff;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}
