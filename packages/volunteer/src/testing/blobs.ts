// Start weights and updates of one tiny matrix, as files.
import { writeSafetensors, writeSparse } from '@weft/formats';

export const MODULE = 'model.layers.0.self_attn.q_proj';
const IN = 6;
const OUT = 4;

/** Factors of one tiny matrix at `rank`; `fill` tells versions apart. */
export function factors(rank: number, fill: number): Uint8Array {
  return writeSafetensors([
    {
      name: `base_model.model.${MODULE}.lora_A.weight`,
      dtype: 'F32',
      shape: [rank, IN],
      data: new Float32Array(rank * IN).fill(fill),
    },
    {
      name: `base_model.model.${MODULE}.lora_B.weight`,
      dtype: 'F32',
      shape: [OUT, rank],
      data: new Float32Array(OUT * rank).fill(fill),
    },
  ]);
}

/** Elements of a sparse update of the same matrix, more a row than any rank granted here. */
export const elements = (fill: number): Uint8Array =>
  writeSparse([{ module: MODULE, out: OUT, in: IN, perRow: 12, values: new Float32Array(OUT * 12).fill(fill) }]);
