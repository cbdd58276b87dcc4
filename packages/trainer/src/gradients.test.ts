import { readSafetensors, toFloat32 } from '@weft/formats';
import { expect, it } from 'vitest';
import { writeGradients } from './gradients.ts';

it('writes the loss as a scalar and gradients under PEFT’s names', () => {
  const module = 'model.layers.0.mlp.up_proj';
  const factors = { module, in: 3, out: 2, rank: 1, alpha: 2, scale: 2 };
  const gradients = new Map([[module, { ...factors, a: Float32Array.of(1, 2, 3), b: Float32Array.of(4, 5) }]]);
  const { tensors } = readSafetensors(writeGradients({ loss: 1.5, gradients }));
  expect([...tensors].map(([name, { dtype, shape }]) => [name, dtype, shape])).toEqual([
    [`base_model.model.${module}.lora_A.weight`, 'F32', [1, 3]],
    [`base_model.model.${module}.lora_B.weight`, 'F32', [2, 1]],
    ['loss', 'F32', []],
  ]);
  const content = [...tensors.values()].map((tensor) => [...toFloat32(tensor)]);
  expect(content).toEqual([[1, 2, 3], [4, 5], [1.5]]);
});
