// How a browser is started so that its tabs have WebGPU: with the machine's GPU, or with Chromium's software adapter.
import { existsSync, readdirSync } from 'node:fs';
import { type Browser, chromium } from 'playwright';

export type AdapterChoice = 'software' | 'hardware';

export class FleetError extends Error {
  override readonly name = 'FleetError';
  readonly code: 'no-browser' | 'no-webgpu' | 'tab' | 'experiment';

  constructor(code: FleetError['code'], message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** WEFT_ADAPTER says `software` or `hardware`; else hardware, except on a Linux machine without a GPU device. */
export function chooseAdapter(environment: NodeJS.ProcessEnv = process.env): AdapterChoice {
  if (environment.WEFT_ADAPTER === 'software' || environment.WEFT_ADAPTER === 'hardware')
    return environment.WEFT_ADAPTER;
  if (process.platform !== 'linux') return 'hardware';
  const renders = existsSync('/dev/dri') && readdirSync('/dev/dri').some((name) => name.startsWith('renderD'));
  return renders || existsSync('/dev/nvidia0') ? 'hardware' : 'software';
}

/** Chromium's command line for WebGPU without a display. The sandbox is off only for root, under whom it cannot start. */
export function launchArguments(adapter: AdapterChoice = chooseAdapter()): string[] {
  const quiet = ['--disable-background-networking', '--disable-component-update', '--no-first-run'];
  const gpu =
    adapter === 'software'
      ? ['--use-webgpu-adapter=swiftshader']
      : ['--enable-features=Vulkan', '--ignore-gpu-blocklist'];
  const sandbox = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
  return ['--enable-unsafe-webgpu', ...gpu, ...quiet, ...sandbox];
}

/**
 * Starts a headless full Chromium: the one WEFT_BROWSER names, else Playwright's. Throws FleetError 'no-browser' when
 * none starts.
 */
export async function launchBrowser(adapter: AdapterChoice = chooseAdapter()): Promise<Browser> {
  const executablePath = process.env.WEFT_BROWSER;
  try {
    return await chromium.launch({
      headless: true,
      ...(executablePath ? { executablePath } : { channel: 'chromium' }),
      args: launchArguments(adapter),
      // Closing the fleet closes its tabs first, so that leases are released; a signal must not race that.
      handleSIGINT: false,
      handleSIGTERM: false,
      handleSIGHUP: false,
    });
  } catch (cause) {
    throw new FleetError(
      'no-browser',
      'No browser could be started. Install Chrome or Chromium, or set WEFT_BROWSER to its path; `npm run setup` does it where it can.',
      { cause },
    );
  }
}
