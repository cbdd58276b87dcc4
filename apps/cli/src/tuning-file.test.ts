import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { tuningFile, tuningIsOn, tuningPath } from './tuning-file.ts';

const freshPath = async () => join(await mkdtemp(join(tmpdir(), 'weft-tuning-')), 'deep', 'variants.json');

describe('kept choices of kernel variants', () => {
  it('are there for the same adapter, and for no other', async () => {
    const path = await freshPath();
    await tuningFile(path).save('one adapter', { wide: 'a' });
    await tuningFile(path).save('another', { wide: 'b' });
    expect(await tuningFile(path).load('one adapter')).toEqual({ wide: 'a' });
    expect(await tuningFile(path).load('another')).toEqual({ wide: 'b' });
    expect(await tuningFile(path).load('a third')).toBeUndefined();
  });

  it('are measured again where the file is no such file, which the next save replaces', async () => {
    const path = await freshPath();
    await tuningFile(path).save('adapter', { wide: 'a' });
    for (const broken of ['{"adapter": {"wide"', '[1]', '{"adapter": 3}']) {
      await writeFile(path, broken);
      expect(await tuningFile(path).load('adapter')).toBeUndefined();
    }
    await tuningFile(path).save('adapter', { wide: 'c' });
    expect(JSON.parse(await readFile(path, 'utf8'))).toEqual({ adapter: { wide: 'c' } });
  });

  it('lie in the user’s cache folder, and are off when asked', () => {
    expect(tuningPath({ XDG_CACHE_HOME: '/cache' })).toBe(join('/cache', 'weft', 'kernel-variants.json'));
    expect([tuningIsOn({}), tuningIsOn({ WEFT_TUNING: 'off' })]).toEqual([true, false]);
  });
});
