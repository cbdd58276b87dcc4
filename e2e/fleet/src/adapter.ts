// Which GPU adapter the tabs of a browser get.
import type { Browser } from 'playwright';
import { FleetError } from './launch.ts';

export interface BrowserAdapter {
  readonly name: string;
  /** True for an adapter that runs on the CPU, such as SwiftShader. */
  readonly software: boolean;
}

const SOFTWARE = /swiftshader|llvmpipe|lavapipe|basic render|warp/i;

/**
 * Asks for an adapter on a page of `url` (WebGPU exists in secure contexts only; localhost is one). Throws FleetError
 * 'no-webgpu' when there is none.
 */
export async function probeAdapter(browser: Browser, url: string): Promise<BrowserAdapter> {
  const page = await browser.newPage();
  try {
    await page.goto(url);
    const info = await page.evaluate(async () => {
      const adapter = await navigator.gpu?.requestAdapter();
      if (!adapter) return null;
      const { vendor, architecture, device, description } = adapter.info;
      return { vendor, architecture, device, description, fallback: adapter.info.isFallbackAdapter === true };
    });
    if (!info) {
      throw new FleetError(
        'no-webgpu',
        'The browser offers no WebGPU adapter. Set WEFT_ADAPTER=software to use its software adapter, or update the GPU driver.',
      );
    }
    const name = [info.description || info.device || info.architecture, info.vendor].filter(Boolean).join(' · ');
    return { name, software: info.fallback || SOFTWARE.test(`${name} ${info.architecture}`) };
  } finally {
    await page.close();
  }
}
