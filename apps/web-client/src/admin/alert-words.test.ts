import { describe, expect, it } from 'vitest';
import { findingsInWords } from './alert-words.ts';

describe('what the last start found', () => {
  it('is counted by kind, in words', () => {
    expect(findingsInWords({ temporary: 1, 'upload-missing': 2 })).toBe('1 half-written file, 2 lost uploads');
  });

  it('is told by its own name where this page does not know the kind', () => {
    expect(findingsInWords({ 'made-later': 3 })).toBe('3 made-later');
  });
});
