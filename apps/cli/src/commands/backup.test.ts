// `weft backup`, `restore` and `prune` as an operator meets them: documents, tables, and errors that say what to do. What they
// copy and free is tested beside the server's store.

import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { commandLine } from '../testing.ts';
import { registerBackup, registerRestore } from './backup.ts';
import { registerPrune } from './prune.ts';

const { file, weft, document, failure } = commandLine(registerBackup, registerRestore, registerPrune);

/** A data folder of this version without runs. */
async function dataFolder(name: string): Promise<string> {
  await mkdir(file(name, 'runs'), { recursive: true });
  await writeFile(file(name, 'format.json'), '{"format": 2}');
  await writeFile(file(name, 'admin.json'), '{"adminTokenSha256": "…"}');
  return file(name);
}

describe('weft backup, restore and prune', () => {
  it('carry a folder over, with a summary in either form', async () => {
    const data = await dataFolder('data');
    const copied = await document(['backup', file('copy'), '--data-dir', data], { chatty: true });
    expect(copied).toMatchObject({ files: 2, runs: [], damaged: [], folder: file('copy') });
    const { exitCode, out } = await weft('restore', file('copy'), '--data-dir', file('again'));
    expect(exitCode).toBe(0);
    expect(out).toMatch(/2 files.*0 runs[\s\S]*weft serve --data-dir/);
    expect(existsSync(file('again', 'admin.json'))).toBe(true);
    const shown = await weft('prune', '--data-dir', data, '--dry-run');
    expect(shown.out).toMatch(/would free[\s\S]*uploads whose time is over +0 +0 B[\s\S]*Nothing was removed/);
    expect(await document(['prune', '--data-dir', data])).toMatchObject({
      dryRun: false,
      total: { files: 0, bytes: 0 },
    });
  });

  it('say what is wrong and what to do', async () => {
    const data = await dataFolder('other');
    expect(await failure(['backup', data, '--data-dir', data])).toMatchObject({
      exitCode: 1,
      code: 'folder-not-empty',
      message: expect.stringContaining('Choose a new folder'),
    });
    expect(await failure(['restore', data, '--data-dir', file('new')])).toMatchObject({ code: 'backup-missing' });
    expect(await failure(['prune', '--data-dir', file('nowhere')])).toMatchObject({ code: 'data-dir-missing' });
    expect((await weft('prune', '--data-dir', data, '--keep-uploads', 'no')).exitCode).toBe(2);
    await writeFile(file('other', 'format.json'), '{"format": 7}');
    expect(await failure(['backup', file('x'), '--data-dir', data])).toMatchObject({ code: 'data-dir-newer' });
    await writeFile(file('other', 'lock'), `${process.ppid}\n`);
    await writeFile(file('other', 'format.json'), '{"format": 2}');
    expect(await failure(['prune', '--data-dir', data])).toMatchObject({ code: 'data-dir-locked' });
  });
});
