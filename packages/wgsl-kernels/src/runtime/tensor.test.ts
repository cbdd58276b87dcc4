import { describe, expect, it } from 'vitest';
import { expectShape, matrixShape, reshape, subTensor, type Tensor } from './tensor.ts';

// Views and shapes never look at the buffer.
const buffer = {} as GPUBuffer;
const tensor: Tensor = { name: 'w', type: 'f32', shape: [10, 64], elements: 640, buffer, offset: 512, bytes: 2560 };

describe('tensor', () => {
  it('views a part of itself', () => {
    const view = subTensor(tensor, 128, [2, 3]);
    expect(view).toMatchObject({ name: 'w', shape: [2, 3], elements: 6, bytes: 24, offset: 1024, buffer });
    expect(subTensor(tensor, 0, [640]).bytes).toBe(2560);
  });

  it.each([
    [-64, [1], 'reaches beyond its 640 elements'],
    [576, [65], '[65] at 576 reaches beyond'],
    [1, [1], 'a multiple of 64 elements, not at 1'],
    [32, [1], 'a multiple of 64 elements, not at 32'],
  ])('refuses a view at %i of [%s]', (at, shape, message) => {
    expect(() => subTensor(tensor, at, shape)).toThrow(expect.objectContaining({ code: 'shape' }));
    expect(() => subTensor(tensor, at, shape)).toThrow(message);
  });

  it('takes another shape of as many elements', () => {
    expect(reshape(tensor, [64, 10]).shape).toEqual([64, 10]);
    expect(() => reshape(tensor, [64, 11])).toThrow('w: [10,64] cannot be read as [64,11].');
  });

  it('names kernel, tensor and both shapes when they differ', () => {
    expect(() => expectShape('rope', 'x', tensor, [10, 65])).toThrow('rope: x (w) is [10,64] where [10,65] is needed.');
    expect(() => expectShape('rope', 'x', tensor, [10])).toThrow('where [10] is needed.');
    expect(() => expectShape('rope', 'x', tensor, [10, 64])).not.toThrow();
    expect(matrixShape('rope', 'x', tensor)).toEqual([10, 64]);
    expect(() => matrixShape('rope', 'x', reshape(tensor, [640]))).toThrow(
      'rope: x (w) is [640] where a matrix is needed.',
    );
  });
});
