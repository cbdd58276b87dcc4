// Set-up: dependencies, a browser, a Vulkan driver for Node, the build. Each step is skipped when it is already done.
// Talks on stderr; plain Node, no dependencies, so that it runs from a bare clone.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  findBrowser,
  recordedEnvironment,
  root,
  stateFolder,
  vulkanCandidates,
  vulkanEnvironment,
} from './environment.mjs';

const say = (text) => process.stderr.write(`weft set-up: ${text}\n`);

/** A failure whose message tells the reader what to do; printed without a stack. */
class SetupError extends Error {}

function runQuietly(command, args, options = {}) {
  const windows = process.platform === 'win32';
  return spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2], shell: windows, ...options }).status === 0;
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new SetupError(`Node ${process.versions.node} is too old; Weft needs 20.19 or newer (https://nodejs.org).`);
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** Runs `work` while holding .weft/setup.lock, so that two commands started at once do not build over each other. */
async function withLock(work) {
  const lock = join(stateFolder, 'setup.lock');
  mkdirSync(stateFolder, { recursive: true });
  for (let waited = 0; ; waited += 1) {
    try {
      writeFileSync(lock, String(process.pid), { flag: 'wx' });
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
      const owner = Number(existsSync(lock) ? readFileSync(lock, 'utf8') : 0);
      if (owner === process.pid || (owner > 0 && !isAlive(owner)) || (owner === 0 && waited > 10)) {
        rmSync(lock, { force: true });
      } else {
        if (waited % 20 === 0) say(`waiting for another set-up (process ${owner}) to finish`);
        await new Promise((done) => setTimeout(done, 500));
      }
    }
  }
  try {
    return await work();
  } finally {
    rmSync(lock, { force: true });
  }
}

function installDependencies() {
  const lockfile = readFileSync(join(root, 'package-lock.json'));
  const hash = createHash('sha256').update(lockfile).update(process.version).digest('hex');
  const stamp = join(root, 'node_modules', '.weft-stamp');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === hash) return;
  say('installing dependencies (npm ci)');
  if (!runQuietly('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'])) {
    throw new SetupError('`npm ci` failed; its message is above. Weft needs the npm registry once.');
  }
  writeFileSync(stamp, hash);
}

const packageManagers = [
  {
    probe: 'apt-get',
    steps: [
      ['apt-get', 'update'],
      ['apt-get', 'install', '-y', 'chromium'],
    ],
    packageName: 'chromium',
  },
  { probe: 'dnf', steps: [['dnf', 'install', '-y', 'chromium']], packageName: 'chromium' },
  { probe: 'pacman', steps: [['pacman', '-Sy', '--noconfirm', 'chromium']], packageName: 'chromium' },
  { probe: 'apk', steps: [['apk', 'add', 'chromium']], packageName: 'chromium' },
];

function systemPackageManager() {
  if (process.platform !== 'linux') return null;
  const onPath = (name) => (process.env.PATH ?? '').split(':').some((folder) => existsSync(join(folder, name)));
  return packageManagers.find(({ probe }) => onPath(probe)) ?? null;
}

function ensureBrowser() {
  const present = findBrowser();
  if (present) return present;
  say("no Chrome or Chromium on PATH; trying Playwright's download of Chromium (about 170 MB)");
  const downloaded = runQuietly('npx', ['--no-install', 'playwright', 'install', 'chromium', '--no-shell'], {
    timeout: 600_000,
  });
  const fromPlaywright = downloaded ? findBrowser() : null;
  if (fromPlaywright) return fromPlaywright;
  const manager = systemPackageManager();
  const commands = manager?.steps.map((step) => step.join(' ')).join(' && ');
  if (manager && process.getuid?.() === 0) {
    say(`installing the system package ${manager.packageName}: ${commands}`);
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    for (const [command, ...args] of manager.steps) runQuietly(command, args, { env });
    const installed = findBrowser();
    if (installed) return installed;
  }
  throw new SetupError(
    `no Chrome or Chromium was found and none could be installed. Install one${commands ? ` (\`sudo sh -c '${commands}'\`)` : ''}, or set WEFT_BROWSER to its path.`,
  );
}

/**
 * Python packages of e2e/foreign-client, for the long tests: installed for root where there is apt-get. Elsewhere its tests are
 * skipped, and say what to install.
 */
function ensurePython() {
  const needs = JSON.parse(readFileSync(join(root, 'e2e', 'foreign-client', 'requirements.json'), 'utf8'));
  const asks = ['-c', `import ${needs.modules.join(', ')}`];
  const candidates = [process.env.WEFT_PYTHON, 'python3', '/usr/bin/python3'].filter(Boolean);
  const present = () => candidates.some((python) => spawnSync(python, asks, { stdio: 'ignore' }).status === 0);
  if (present()) return;
  const apt = packageManagers.find(({ probe }) => probe === 'apt-get');
  if (systemPackageManager() === apt && process.getuid?.() === 0) {
    say(`installing the system packages ${needs.debian.join(', ')}`);
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    runQuietly('apt-get', ['update'], { env });
    runQuietly('apt-get', ['install', '-y', ...needs.debian], { env });
    if (present()) return;
  }
  say(`no Python has ${needs.modules.join(', ')}: the foreign client's tests will be skipped`);
}

function probeGpu(candidate) {
  const env = { ...process.env, ...vulkanEnvironment(candidate) };
  try {
    const output = execFileSync(process.execPath, [join(root, 'scripts', 'probe-gpu.mjs')], {
      env,
      timeout: 60_000,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return JSON.parse(output);
  } catch {
    return null; // no adapter with this driver: the next candidate is tried, and none at all is an error
  }
}

function findVulkan(browser) {
  for (const candidate of vulkanCandidates(browser)) {
    const adapter = probeGpu(candidate);
    if (adapter) {
      say(`WebGPU in Node: ${adapter.description || adapter.name || adapter.vendor} (${candidate.name} driver)`);
      return candidate;
    }
  }
  return null;
}

function recordIsValid(record) {
  const files = [record.browser, record.vulkan?.loader, ...(record.vulkan?.drivers ?? [])];
  return files.every((path) => !path || existsSync(path));
}

/** Finds, or installs, what `needs` names and remembers it in .weft/environment.json. */
function prepareEnvironment(needs) {
  const record = recordedEnvironment();
  const drivers = process.env.VK_DRIVER_FILES ?? process.env.VK_ICD_FILENAMES ?? '';
  const key = JSON.stringify([process.env.WEFT_BROWSER ?? '', drivers]);
  const known = record && record.key === key && recordIsValid(record) ? record : { key, browser: null, vulkan: null };
  if (needs.browser && !known.browser) known.browser = ensureBrowser();
  if (needs.gpu && !known.vulkan) {
    known.vulkan = findVulkan(known.browser ?? findBrowser());
    if (!known.vulkan) {
      // The only driver that can be had everywhere is the one inside the browser.
      known.browser ??= ensureBrowser();
      known.vulkan = findVulkan(known.browser);
    }
    if (!known.vulkan) {
      throw new SetupError(
        "no Vulkan driver gives Node a WebGPU adapter. Install your GPU's Vulkan driver, or Debian's `chromium` package, which brings SwiftShader.",
      );
    }
  }
  writeFileSync(join(stateFolder, 'environment.json'), `${JSON.stringify(known, null, 2)}\n`);
  return known;
}

/**
 * Makes the checkout ready and returns the environment for the processes to start.
 * @param {{ browser?: boolean, gpu?: boolean, python?: boolean }} needs what the command to come will use
 */
export async function setup(needs = {}) {
  checkNode();
  return await withLock(async () => {
    installDependencies();
    const { browser, vulkan } = prepareEnvironment(needs);
    if (needs.python) ensurePython();
    const { build } = await import('./build.mjs');
    await build(say);
    return {
      ...process.env,
      ...(browser ? { WEFT_BROWSER: browser } : {}),
      ...(needs.gpu ? vulkanEnvironment(vulkan) : {}),
    };
  });
}

/** Runs `main` and prints a set-up failure as one sentence. */
export async function reportingSetupErrors(main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    say(error.message);
    process.exitCode = 1;
  }
}

if (process.argv[1] && import.meta.url.endsWith('/scripts/setup.mjs') && process.argv[1].endsWith('setup.mjs')) {
  await reportingSetupErrors(() => setup({ browser: true, gpu: true }));
}
