// The page of the long trials says what the files beside it say, and a result that changes shows.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readResults, resultsTable, type StoredResult, withResults } from './report.ts';

const folder = join(import.meta.dirname, '..', '..', 'docs', 'benchmarks', 'server');

const example: StoredResult = {
  date: '2026-11-28T17:00:00.000Z',
  commit: 'abc1234',
  machine: { processors: 2, model: 'a processor', node: 'v20.20.2' },
  trial: 'storm',
  command: 'npm run load -- storm',
  figures: [{ name: 'leases lost', measured: '3', toReach: '0', ok: false }],
};

describe('docs/benchmarks/server/README.md', () => {
  it('agrees with the results beside it; after a new one: npm run chaos -- report', () => {
    const page = readFileSync(join(folder, 'README.md'), 'utf8');
    expect(withResults(page, readResults(folder))).toBe(page);
  });

  it('shows a miss, and would differ by any figure', () => {
    expect(resultsTable([example])).toContain('| leases lost | 3 | 0 | **missed** |');
    const page = readFileSync(join(folder, 'README.md'), 'utf8');
    expect(withResults(page, [example])).not.toBe(page);
  });

  it('is refused where it has no place for results', () => {
    expect(() => withResults('nothing', [])).toThrow('no place for results');
  });
});
