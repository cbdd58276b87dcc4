// The process of the embedded index: what its death, and another one in the folder, come to.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { quiet } from '../testing/index-place.ts';
import type { Connection } from './connection.ts';
import { embeddedPlace } from './embedded.ts';

let root: string;
let folder: string;
const open: Connection[] = [];
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'weft-embedded-'));
  folder = join(root, 'database');
});
afterEach(async () => {
  for (const connection of open.splice(0)) await connection.end();
  rmSync(root, { recursive: true, force: true });
});

const opened = async (lost: (error: Error) => void = () => undefined): Promise<Connection> => {
  const connection = await embeddedPlace(folder, quiet).open(new AbortController().signal, lost);
  open.push(connection);
  return connection;
};
const pidOfIndex = (): number => Number(readFileSync(`${folder}.pid`, 'utf8'));

it('tells when its process is killed, keeps what was written, and opens again once nobody else has it open', async () => {
  const gone: Error[] = [];
  const first = await opened((error) => gone.push(error));
  await first.query('create table kept (value integer)');
  await first.query('insert into kept values ($1)', [7]);
  const pid = pidOfIndex();
  expect(pid).not.toBe(process.pid);
  process.kill(pid, 'SIGKILL');
  await expect.poll(() => gone.length).toBe(1);
  expect(gone[0]).toMatchObject({ code: 'database' });
  await expect(first.query('select 1')).rejects.toMatchObject({ code: 'database' });
  expect(existsSync(`${folder}.pid`)).toBe(false);

  const orphan = spawn(process.execPath, ['-e', 'setTimeout(() => undefined, 60_000)'], { stdio: 'ignore' });
  writeFileSync(`${folder}.pid`, `${orphan.pid}\n`);
  let isOpen = false;
  const opening = opened().then((connection) => {
    isOpen = true;
    return connection;
  });
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(isOpen).toBe(false);
  orphan.kill('SIGKILL');
  await once(orphan, 'exit');
  const second = await opening;
  expect(pidOfIndex()).not.toBe(orphan.pid);
  expect(await second.query('select value from kept')).toEqual([[7]]);
  await second.close();
  expect(existsSync(`${folder}.pid`)).toBe(false);
}, 60_000);
