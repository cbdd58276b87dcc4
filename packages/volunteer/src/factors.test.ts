import { peftTensorName, writeSafetensors } from '@weft/formats';
import { describe, expect, it } from 'vitest';
import { checkUpdate } from './factors.ts';

const [wide, small] = ['model.layers.0.self_attn.q_proj', 'model.layers.0.self_attn.k_proj'];

/** A blob of two matrices, one of which cannot have more than rank 2. */
function blob(rank: number, smallRank = Math.min(rank, 2)): Uint8Array {
  const tensor = (module: string, factor: 'A' | 'B', shape: [number, number]) => ({
    name: peftTensorName(module, factor),
    dtype: 'F32' as const,
    shape,
    data: new Float32Array(shape[0] * shape[1]),
  });
  return writeSafetensors([
    tensor(wide, 'A', [rank, 9]),
    tensor(wide, 'B', [8, rank]),
    tensor(small, 'A', [smallRank, 9]),
    tensor(small, 'B', [2, smallRank]),
  ]);
}
const grant = {
  rank: 4,
  alpha: 8,
  rankPattern: { [small]: 2 },
  alphaPattern: { [small]: 4 },
  targets: ['q_proj' as const, 'k_proj' as const],
};
const pruning = { gamma: 0.75, lambda: 1 };
const refusal = expect.objectContaining({ code: 'update-rank' });

describe('an update before it is sent', () => {
  it('has the ranks that were granted, or those that pruning leaves', () => {
    checkUpdate(blob(4), blob(4), { grant, pruning: null, rank: 4 });
    checkUpdate(blob(4), blob(4), { grant, pruning, rank: 4 });
    checkUpdate(blob(3), blob(4), { grant, pruning, rank: 3 });
    checkUpdate(blob(2), blob(4), { grant, pruning: { ...pruning, gamma: 0.5 }, rank: 2 });
  });

  it.each<[string, number, typeof pruning | null, Uint8Array]>([
    ['pruned where the lease does not say so', 3, null, blob(3)],
    ['pruned to another rank', 2, pruning, blob(2)],
    ['said to be pruned, and whole', 3, pruning, blob(4)],
    ['said to be whole, and pruned', 4, pruning, blob(3)],
    ['with a small matrix cut that pruning leaves alone', 3, pruning, blob(3, 1)],
  ])('is refused when it is %s', (_name, rank, lease, update) => {
    expect(() => checkUpdate(update, blob(4), { grant, pruning: lease, rank })).toThrow(refusal);
  });
});
