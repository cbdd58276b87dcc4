// The import rules of docs/architecture.md hold in this repository, and catch a deliberate violation.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { cruise, type ICruiseResult } from 'dependency-cruiser';
import extractTSConfig from 'dependency-cruiser/config-utl/extract-ts-config';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..');
const { forbidden, options } = createRequire(import.meta.url)('../.dependency-cruiser.cjs');

async function violationsIn(baseDir: string, folders: string[]): Promise<string[]> {
  const { output } = await cruise(
    folders,
    { ...options, tsConfig: undefined, baseDir, ruleSet: { forbidden, options }, validate: true },
    options.enhancedResolveOptions,
    { tsConfig: extractTSConfig(join(root, 'tsconfig.json')) },
  );
  const { summary } = output as ICruiseResult;
  return summary.violations.map(({ rule, from, to }) => `${rule.name}: ${from} → ${to}`);
}

describe('who may import whom', () => {
  it('holds everywhere', async () => {
    expect(await violationsIn(root, ['packages', 'apps', 'e2e', 'bench'])).toEqual([]);
  });

  it('catches a deliberate violation', async () => {
    const found = await violationsIn(join(import.meta.dirname, 'fixtures', 'forbidden-imports'), ['packages', 'apps']);
    expect(found).toEqual([
      'packages-flexlora-imports: packages/flexlora/src/index.ts → apps/server/src/index.ts',
      'pure-rooms-touch-no-machine: packages/formats/src/index.ts → fs',
    ]);
  });
});
