// A committed version as a PEFT folder: one uniform rank, padded with zeros where a matrix is smaller, and a model card.
import {
  alphaOf,
  type LoraAdapter,
  type LoraFactors,
  modelCard,
  peftTensorName,
  rankOf,
  readSafetensors,
  scaleOf,
  toFloat32,
  uniformRank,
  writeAdapter,
} from '@weft/formats';
import type { Grant, RoundRecord, RunView } from '@weft/protocol';
import { zipSync } from 'fflate';
import type { Matrix } from '../runs/grants.ts';

export interface AdapterSource {
  readonly run: RunView;
  readonly version: number;
  readonly matrices: readonly Matrix[];
  readonly grant: Grant;
  /** Factors of this version at this grant: safetensors with PEFT names. */
  readonly factors: Uint8Array;
  readonly records: readonly RoundRecord[];
}

export const ADAPTER_FILES = ['adapter_config.json', 'adapter_model.safetensors', 'README.md'] as const;
export type AdapterFile = (typeof ADAPTER_FILES)[number];

function readFactor(source: AdapterSource, matrix: Matrix): LoraFactors {
  const { tensors } = readSafetensors(source.factors, 'the adapter');
  const { module, out, in: columns } = matrix;
  const load = (factor: 'A' | 'B'): Float32Array => {
    const name = peftTensorName(module, factor);
    const tensor = tensors.get(name);
    if (!tensor) throw new RangeError(`The adapter lacks ${name}.`);
    return toFloat32(tensor, name);
  };
  const rank = rankOf(source.grant, module);
  const alpha = alphaOf(source.grant, module);
  return { module, out, in: columns, rank, alpha, scale: scaleOf(alpha, rank), a: load('A'), b: load('B') };
}

/** The files of the folder by name. */
export function adapterFolder(source: AdapterSource): Record<AdapterFile, Uint8Array> {
  const matrices = new Map(source.matrices.map((matrix) => [matrix.module, readFactor(source, matrix)]));
  const adapter = uniformRank({ baseModel: source.run.model.name, rslora: false, matrices }, source.grant.rank);
  const files = writeAdapter(adapter);
  const text = new TextEncoder();
  return {
    'adapter_config.json': text.encode(files['adapter_config.json']),
    'adapter_model.safetensors': files['adapter_model.safetensors'],
    'README.md': text.encode(cardOf(source, adapter)),
  };
}

/** The folder as one zip file. Equal content gives equal bytes. */
export function adapterZip(source: AdapterSource): Uint8Array {
  // The earliest date zip knows: a file's time says nothing here.
  return zipSync(adapterFolder(source), { level: 6, mtime: '1980-01-02T00:00:00Z' });
}

function cardOf({ run, version, records }: AdapterSource, adapter: LoraAdapter): string {
  const { settings, model } = run;
  const committed = records.filter((record) => record.outcome === 'committed' && record.version <= version);
  const merged = committed.flatMap((record) => record.contributions.filter((item) => item.quarantined === null));
  const losses = records.find((record) => record.outcome === 'committed' && record.version === version)?.heldOutLoss;
  return modelCard({
    title: settings.name,
    summary: `${settings.purpose} Trained by volunteers with Weft.`,
    adapter,
    licence: model.licence,
    tags: ['federated'],
    data: { tasks: settings.tasks, targetTokens: merged.reduce((sum, item) => sum + item.targetTokens, 0) },
    federation: {
      strategy: settings.strategy,
      rounds: committed.length,
      contributors: new Set(merged.map((item) => item.clientId)).size,
      updates: merged.length,
    },
    ...(losses ? { heldOutLoss: losses } : {}),
    facts: [
      ['operator', settings.operator],
      ['ranks trained', settings.ranks.join(', ')],
      ['version', String(version)],
      ['run', `${run.runId}, run hash ${run.runHash}`],
    ],
  });
}
