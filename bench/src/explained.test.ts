import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { anchorsOf, brokenExplanations, EXPLAINED, explainBy } from './explained.ts';

describe('explanations', () => {
  it('all lead to a heading that exists', () => {
    expect(brokenExplanations(EXPLAINED, join(import.meta.dirname, '..', '..', 'docs', 'benchmarks'))).toEqual([]);
  });

  it('are refused where file or heading is missing', () => {
    const folder = mkdtempSync(join(tmpdir(), 'weft-bench-'));
    try {
      writeFileSync(join(folder, 'README.md'), '# Misses\n\n## q4 on lavapipe: why 60 %\n\nnot a #heading\n');
      const by = (address: `${string}.md#${string}`) =>
        brokenExplanations([{ adapter: 'lavapipe', row: 'weights', by: address }], folder);
      expect(by('README.md#q4-on-lavapipe-why-60-')).toEqual([]);
      expect(by('README.md#heading')).toHaveLength(1);
      expect(by('OTHER.md#misses')).toHaveLength(1);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('are found by adapter and the longest fitting row', () => {
    const explain = explainBy([
      { adapter: 'lavapipe', row: 'matmul', by: 'README.md#all' },
      { adapter: 'lavapipe', row: 'matmul-nt-512/peer', by: 'README.md#one' },
    ]);
    expect(explain('lavapipe', 'matmul-nt-512/peer')).toBe('README.md#one');
    expect(explain('lavapipe', 'matmul-nn-512/peer')).toBe('README.md#all');
    expect(explain('lavapipe', 'step-s15-4k/peer')).toBeUndefined();
    expect(explain('swiftshader', 'matmul-nt-512/peer')).toBeUndefined();
  });

  it('know anchors as GitHub makes them', () => {
    expect(anchorsOf('## `matmul`: NT, 512³\ntext\n### A b  c')).toEqual(new Set(['matmul-nt-512³', 'a-b--c']));
  });
});
