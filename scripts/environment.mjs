// Where this machine keeps a browser and a Vulkan driver, and the environment our processes need to use them.
// Looks only; scripts/setup.mjs installs.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
export const stateFolder = join(root, '.weft');

const browserNames = ['google-chrome', 'google-chrome-stable', 'chromium', 'chromium-browser', 'chrome', 'chrome.exe'];
const browserPaths = {
  darwin: [
    '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
    '/Applications/Chromium.app/Contents/MacOS/Chromium',
  ],
  win32: [process.env.PROGRAMFILES, process.env['PROGRAMFILES(X86)'], process.env.LOCALAPPDATA]
    .filter(Boolean)
    .map((folder) => join(folder, 'Google', 'Chrome', 'Application', 'chrome.exe')),
};

/** Does the program start at all? (A downloaded browser may lack system libraries.) */
function starts(executable) {
  if (process.platform === 'win32') return existsSync(executable);
  try {
    execFileSync(executable, ['--version'], { stdio: 'ignore', timeout: 30_000 });
    return true;
  } catch {
    return false;
  }
}

function playwrightBrowser() {
  try {
    return createRequire(join(root, 'e2e', 'package.json'))('playwright').chromium.executablePath();
  } catch {
    return null; // not installed yet: set-up asks again after `npm ci`
  }
}

/** Path of a Chrome or Chromium that starts: WEFT_BROWSER, else one on PATH, else Playwright's download; or null. */
export function findBrowser() {
  if (process.env.WEFT_BROWSER) {
    if (starts(process.env.WEFT_BROWSER)) return process.env.WEFT_BROWSER;
    throw new Error(`WEFT_BROWSER names ${process.env.WEFT_BROWSER}, which does not start. Correct or unset it.`);
  }
  const onPath = (process.env.PATH ?? '')
    .split(delimiter)
    .flatMap((folder) => browserNames.map((n) => join(folder, n)));
  const candidates = [...onPath, ...(browserPaths[process.platform] ?? []), playwrightBrowser()];
  return candidates.find((path) => path && existsSync(path) && starts(path)) ?? null;
}

const isFile = (path) => existsSync(path);

/** Folders in which a browser may keep its SwiftShader beside its Vulkan loader. */
function browserFolders(browser) {
  const folders = ['/usr/lib/chromium', '/usr/lib/chromium-browser', '/usr/lib64/chromium', '/opt/google/chrome'];
  folders.push('/snap/chromium/current/usr/lib/chromium-browser');
  if (browser && existsSync(browser)) folders.unshift(dirname(realpathSync(browser)));
  return [...new Set(folders)];
}

function systemVulkanLoader() {
  const folders = [
    '/usr/lib',
    '/usr/lib64',
    '/lib',
    '/usr/local/lib',
    '/usr/lib/x86_64-linux-gnu',
    '/usr/lib/aarch64-linux-gnu',
  ];
  return folders.map((folder) => join(folder, 'libvulkan.so.1')).find(isFile) ?? null;
}

function systemDrivers() {
  const named = process.env.VK_DRIVER_FILES ?? process.env.VK_ICD_FILENAMES;
  if (named) return named.split(delimiter).filter(isFile);
  return ['/usr/share/vulkan/icd.d', '/etc/vulkan/icd.d', '/usr/local/share/vulkan/icd.d']
    .filter(existsSync)
    .flatMap((folder) =>
      readdirSync(folder)
        .filter((name) => name.endsWith('.json'))
        .map((name) => join(folder, name)),
    );
}

/**
 * Vulkan drivers worth trying for Node, best first: the system's own, then the SwiftShader that comes with the
 * browser. Each is `{ name, loader, drivers }`; macOS and Windows need none (Metal, Direct3D) and get one empty entry.
 */
export function vulkanCandidates(browser) {
  if (process.platform !== 'linux') return [{ name: 'system', loader: null, drivers: [] }];
  const candidates = [];
  const loader = systemVulkanLoader();
  const drivers = systemDrivers();
  if (drivers.length > 0) {
    const anyLoader =
      loader ??
      browserFolders(browser)
        .map((f) => join(f, 'libvulkan.so.1'))
        .find(isFile);
    if (anyLoader) candidates.push({ name: 'system', loader: anyLoader, drivers });
  }
  for (const folder of browserFolders(browser)) {
    const swiftshader = join(folder, 'vk_swiftshader_icd.json');
    const ownLoader = join(folder, 'libvulkan.so.1');
    if (isFile(swiftshader) && (isFile(ownLoader) || loader)) {
      candidates.push({ name: 'swiftshader', loader: isFile(ownLoader) ? ownLoader : loader, drivers: [swiftshader] });
    }
  }
  return candidates;
}

/** Environment variables with which a child process finds this Vulkan driver. */
export function vulkanEnvironment(candidate) {
  if (!candidate?.loader) return {};
  // The loader gets a folder of its own, so that nothing else of the browser's shadows a system library.
  const folder = join(stateFolder, 'vulkan', candidate.name);
  mkdirSync(folder, { recursive: true });
  const link = join(folder, 'libvulkan.so.1');
  if (!existsSync(link) || realpathSync(link) !== realpathSync(candidate.loader)) {
    rmSync(link, { force: true });
    symlinkSync(realpathSync(candidate.loader), link);
  }
  const libraryPath = [folder, process.env.LD_LIBRARY_PATH].filter(Boolean).join(delimiter);
  const drivers = candidate.drivers.join(delimiter);
  return { LD_LIBRARY_PATH: libraryPath, VK_DRIVER_FILES: drivers, VK_ICD_FILENAMES: drivers };
}

/** What set-up found last time: `{ browser, vulkan }`, or null. */
export function recordedEnvironment() {
  try {
    return JSON.parse(readFileSync(join(stateFolder, 'environment.json'), 'utf8'));
  } catch {
    return null; // never set up, or a half-written record: set-up writes it anew
  }
}
