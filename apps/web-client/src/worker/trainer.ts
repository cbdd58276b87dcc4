// The trainer of this tab: the GPU opened in the worker, and a count of rows that will be cut, made without the GPU.

import { parseDataLines, parseModelConfig } from '@weft/formats';
import type { OwnLimits, RankProposal, RunView } from '@weft/protocol';
import { createLocalTrainer, encodeRows, loadTokenizer, openGpu, tuneVariants } from '@weft/trainer';
import type { ModelFiles, Trainer } from '@weft/volunteer';
import { storedTuning } from './tuning.ts';

/** Opens a trainer on a fresh GPU device; `tuning` measures kernel variants on it. Throws GpuError 'no-webgpu', 'insecure-context' or 'no-adapter'. */
export async function openTrainer({ tuning }: { tuning: boolean }): Promise<Trainer> {
  const gpu = await openGpu(navigator.gpu);
  if (tuning) await tuneVariants(gpu, storedTuning());
  const { deviceMemory } = navigator as WorkerNavigator & { deviceMemory?: number };
  return createLocalTrainer(gpu, { deviceMemoryGiB: deviceMemory ?? null });
}

/** Remembers the model and run a trainer was last asked about, for {@link RowCounter}. */
export class RowCounter {
  #files: ModelFiles | null = null;
  #sequenceLength = 0;

  /** `trainer`, watched. */
  watch(trainer: Trainer): Trainer {
    return {
      device: () => trainer.device(),
      proposeRank: (run: RunView, model: ModelFiles, limits: OwnLimits): Promise<RankProposal> => {
        this.#files = model;
        this.#sequenceLength = run.settings.sequenceLength;
        return trainer.proposeRank(run, model, limits);
      },
      train: (model, job, control) => trainer.train(model, job, control),
      evaluate: (model, job, adapter, rows, signal) => trainer.evaluate(model, job, adapter, rows, signal),
      close: () => trainer.close(),
    };
  }

  /** Rows (JSONL text) that will be cut to the run's sequence length, and those with nothing left to learn; null before the
   * model is here. Throws TrainerError 'token-range', 'no-targets' or 'no-tokenizer'. */
  count(rows: string): { cut: number; unlabelled: number } | null {
    const read = (name: string) => this.#files?.get(name);
    const [configFile, tokenizerFile, tokenizerConfig] = [
      read('config.json'),
      read('tokenizer.json'),
      read('tokenizer_config.json'),
    ];
    if (!configFile) return null;
    const config = parseModelConfig(new TextDecoder().decode(configFile));
    const extras = { chatTemplate: read('chat_template.jinja'), specialTokensMap: read('special_tokens_map.json') };
    const tokenizer =
      tokenizerFile && tokenizerConfig ? loadTokenizer(tokenizerFile, tokenizerConfig, config, extras) : null;
    const length = Math.min(this.#sequenceLength, config.maxPositions);
    const { truncated, unlabelled } = encodeRows(parseDataLines(rows, 'your file'), { config, tokenizer }, length);
    return { cut: truncated, unlabelled };
  }
}
