// The whole bench on one GPU entry: the same code, in the same bundle, in Node and in the page. Measures and judges nothing.
import { measurePeaks, openPeakProbes } from '@weft/wgsl-kernels';
import manifest from '../package.json' with { type: 'json' };
import { ablationCases } from './cases/ablation.ts';
import type { Context, Peer } from './cases/context.ts';
import { kernelCases } from './cases/kernels.ts';
import { matmulCase } from './cases/matmul.ts';
import { decodeCase, firstStepCase, stepCase } from './cases/steps.ts';
import { messageOf } from './measure.ts';
import type { Library } from './peers/peer.ts';
import { openWeft } from './peers/weft.ts';
import { type AdapterFacts, classOf, type Measurement, type SuiteOptions, type SuiteResult } from './result.ts';

/** Opened only when needed: each takes a device of its own, and looks for `navigator.gpu` on import. */
const PEERS: readonly { readonly name: string; open(): Promise<Library> }[] = [
  { name: 'tfjs', open: async () => (await import('./peers/tfjs.ts')).openTfjs() },
  {
    name: 'jax-js',
    open: async () => (await import('./peers/jax.ts')).openJax(manifest.dependencies['@jax-js/jax']),
  },
];

/** The row that tells how fast the peers are; it runs first among theirs. */
const SMALLEST = 512;

/**
 * Measures everything that is asked for. `progress` is told a line for each measurement. Throws where our own library fails;
 * a peer that cannot be opened or cannot do something is reported with its error.
 */
export async function runSuite(
  entry: GPU | undefined,
  options: SuiteOptions,
  progress: (text: string) => void,
): Promise<SuiteResult> {
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  const measurements: Measurement[] = [];
  const wants = (id: string): boolean => {
    if (options.only.length > 0 && !options.only.some((part) => id.includes(part))) return false;
    if (seconds() < options.deadlineSeconds) return true;
    progress(`${id}: not measured, the time is up`);
    return false;
  };
  const say = (text: string) => progress(`${seconds().toFixed(0).padStart(4)} s  ${text}`);
  const reporting = { wants, progress: say, add: (measurement: Measurement) => void measurements.push(measurement) };

  // Before anything else compiles.
  await firstStepCase(reporting, entry, options.quick ? 's15-4k' : 's15-32k');

  const ours = await openWeft(entry);
  const { gpu } = ours;
  const measured = await measurePeaks(gpu);
  const { gflops, gigabytes, loadGigabytes, f16Gflops, gigaexps } = measured;
  say(
    `peaks: ${gflops.toFixed(1)} GFLOP/s, ${gigabytes.toFixed(1)} GB/s, ${loadGigabytes.toFixed(1)} GB/s of loads, ${gigaexps.toFixed(2)} Gexp/s`,
  );

  const peers: Peer[] = [];
  const libraries = [ours.name];
  for (const { name, open } of PEERS) {
    try {
      const library = await open();
      peers.push({ library, gflops: null });
      libraries.push(library.name);
    } catch (error) {
      const cannot = messageOf(error);
      say(`${name} cannot be opened: ${cannot}`);
      libraries.push(`${name} (cannot be opened: ${cannot})`);
    }
  }

  const probes = await openPeakProbes(gpu, measured);
  const context: Context = { gpu, ours, peers, options, probes, ...reporting };
  for (const kind of ['NT', 'NN'] as const) await matmulCase(context, SMALLEST, kind);
  for (const name of options.quick ? (['s15-4k', 's026'] as const) : (['s15-32k', 's15-4k', 's026'] as const))
    await stepCase(context, name);
  await decodeCase(context);
  for (const size of options.quick ? [1024] : [1024, 2048])
    for (const kind of ['NT', 'NN'] as const) await matmulCase(context, size, kind);
  await ablationCases(context);
  await kernelCases(context);

  const { vendor, architecture, device, description, software } = gpu.adapter;
  const names = { vendor, architecture, device, description };
  const adapter: AdapterFacts = { ...names, features: [...gpu.features].sort(), class: classOf(names, software) };
  probes.destroy();
  await ours.close();
  return {
    adapter,
    peaks: { gflops, gigabytes, loadGigabytes, f16Gflops, gigaexps },
    libraries,
    measurements,
    seconds: seconds(),
  };
}
