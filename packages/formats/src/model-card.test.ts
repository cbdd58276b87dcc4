import { describe, expect, it } from 'vitest';
import { type ModelCard, modelCard } from './model-card.ts';
import type { LoraAdapter } from './peft.ts';

const adapter = (baseModel: string, ranks: readonly number[] = [4]): LoraAdapter => ({
  baseModel,
  rslora: false,
  matrices: new Map(
    ranks.map((rank, i) => {
      const module = `model.layers.${i}.self_attn.${i % 2 ? 'v' : 'q'}_proj`;
      const sizes = { in: 1, out: 1, rank, alpha: 2 * rank, scale: 2 };
      return [module, { module, ...sizes, a: new Float32Array(rank), b: new Float32Array(rank) }];
    }),
  ),
});

const least: ModelCard = { title: 'An adapter', summary: 'Trained.', adapter: adapter('org/model') };
const frontMatter = (card: ModelCard): string[] => modelCard(card).split(/^---$/m)[1]?.trim().split('\n') ?? [];

describe('modelCard', () => {
  it('says the least in a form that PEFT and hubs read', () => {
    expect(modelCard(least)).toBe(
      [
        '---',
        'base_model: org/model',
        'library_name: peft',
        'pipeline_tag: text-generation',
        'tags:',
        '- lora',
        '- weft',
        '---',
        '',
        '# An adapter',
        '',
        "Trained. The base model's licence applies to it.",
        '',
        '|  |  |',
        '| --- | --- |',
        '| base model | org/model |',
        '| LoRA | rank 4, alpha 8 |',
        '| adapted | q_proj |',
        '',
      ].join('\n'),
    );
  });

  it('says all it is told, of local and of federated training', () => {
    const text = modelCard({
      title: 'Rooms\nand halls',
      summary: 'Trained by volunteers.',
      adapter: { ...adapter('m', [8, 4, 8]), rslora: true, dropout: 0.1 },
      licence: 'apache-2.0',
      tags: ['federated', 'lora'],
      data: { tasks: ['a|b', 'c'], rows: 10, truncatedRows: 1, targetTokens: 700 },
      training: { steps: 1, batch: 8, optimizer: 'AdamW', learningRate: 1e-3, finalLoss: 1.23456 },
      federation: { strategy: 'flexlora', rounds: 5, contributors: 1, updates: 9 },
      heldOutLoss: { rooms: 2 },
      facts: [['operator', 'someone']],
      sections: [{ title: 'Inputs', lines: ['- one', '- two'] }],
    });
    for (const line of [
      'license: apache-2.0',
      '- federated',
      '# Rooms and halls',
      'Trained by volunteers.',
      '| base model | m, licence: apache-2.0 |',
      '| LoRA | rank 4, 8, alpha 8, 16, rank-stabilised (use_rslora), dropout 0.1 |',
      '| adapted | q_proj, v_proj |',
      '| merging | flexlora, 5 merged rounds |',
      '| contributors | 1 device, 9 updates |',
      '| training | 1 step, 8 rows a step, AdamW, learning rate 0.001 |',
      '| last training loss | 1.2346 nats per labelled token |',
      '| data | a\\|b, c, 10 rows, 1 row cut to the sequence length, 700 labelled tokens |',
      '| operator | someone |',
      '| rooms | 2.0000 |',
      '## Inputs',
      '- two',
    ])
      expect(text.split('\n')).toContain(line);
    expect(text.match(/^- lora$/gm)).toHaveLength(1);
  });

  it('keeps the front matter well-formed, whatever the names', () => {
    const base = (baseModel: string) => frontMatter({ ...least, adapter: adapter(baseModel) })[0];
    expect(base('/models/my model: "v2"\n---')).toBe('base_model: "/models/my model: \\"v2\\" ---"');
    expect(base('null')).toBe('base_model: "null"');
    expect(base('')).toBe('library_name: peft');
    expect(frontMatter({ ...least, licence: 'see the model card' })).toEqual(
      expect.arrayContaining(['license: other', 'license_name: "see the model card"']),
    );
  });
});
