// `npm run bench`: makes the checkout ready, finds the adapter to measure on, then runs the built bench. In Node that is the
// machine's GPU or, without one, lavapipe; where there is neither it says what to install and exits 2.
import { execFileSync, spawn } from 'node:child_process';
import { join } from 'node:path';
import { findBrowser, root, vulkanCandidates, vulkanEnvironment } from './environment.mjs';
import { reportingSetupErrors, setup } from './setup.mjs';

const args = process.argv.slice(2);
const asksForHelp = args.includes('--help') || args.includes('-h');
const browser = args.includes('--browser');
const measures = !asksForHelp && !args.some((arg) => /^--from(=|$)/.test(arg));

const INSTALL = `no GPU that Node could use, and no lavapipe, Mesa's software Vulkan driver. Install it:
  Debian, Ubuntu   apt-get install mesa-vulkan-drivers libvulkan1
  Fedora           dnf install mesa-vulkan-drivers vulkan-loader
  Arch             pacman -S vulkan-swrast vulkan-icd-loader
  Alpine           apk add mesa-vulkan-swrast vulkan-loader
or your GPU's Vulkan driver; or measure in Chromium: npm run bench -- --browser`;

/** Names of the adapter that Dawn finds with this driver, as one text; null where it finds none. */
function adapterOf(candidate) {
  try {
    const output = execFileSync(process.execPath, [join(root, 'scripts', 'probe-gpu.mjs')], {
      env: { ...process.env, ...vulkanEnvironment(candidate) },
      timeout: 60_000,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return Object.values(JSON.parse(output)).join(' ');
  } catch {
    return null; // no adapter with this driver, which is an answer
  }
}

/** The environment in which Node finds a GPU or lavapipe; null where there is neither. */
function measurableEnvironment() {
  for (const candidate of vulkanCandidates(findBrowser())) {
    // The browser's SwiftShader is measured in the browser, where it has gates.
    if (candidate.name === 'swiftshader') continue;
    const adapter = adapterOf(candidate);
    if (adapter && !/swiftshader/i.test(adapter)) return vulkanEnvironment(candidate);
  }
  return null;
}

await reportingSetupErrors(async () => {
  const ready = await setup({ browser: browser && measures });
  const vulkan = browser || !measures ? {} : measurableEnvironment();
  if (!vulkan) {
    process.stderr.write(`weft bench: ${INSTALL}\n`);
    process.exitCode = 2;
    return;
  }
  const child = spawn(process.execPath, [join(root, 'bench', 'dist', 'bench.js'), ...args], {
    cwd: process.env.INIT_CWD ?? process.cwd(),
    // A cache of compiled shaders would make first steps and compile times those of another run.
    env: { ...ready, ...vulkan, MESA_SHADER_CACHE_DISABLE: 'true' },
    stdio: 'inherit',
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  await new Promise((resolve) => {
    child.on('exit', (code, signal) => {
      process.exitCode = signal ? 1 : (code ?? 1);
      resolve();
    });
  });
});
