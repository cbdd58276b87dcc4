// The part of Node's `util` that tf.js asks for, from what Node and browsers share: one bundle serves both.
export const { TextEncoder, TextDecoder } = globalThis;

export const types = {
  isFloat32Array: (value: unknown) => value instanceof Float32Array,
  isInt32Array: (value: unknown) => value instanceof Int32Array,
  isUint8Array: (value: unknown) => value instanceof Uint8Array,
  isUint8ClampedArray: (value: unknown) => value instanceof Uint8ClampedArray,
};
