// A model with its adapter and the checkpoint both were merged into are one model.
import { mergeAdapter, readAdapter, writeAdapter } from '@weft/formats';
import type { Gpu } from '@weft/wgsl-kernels';
import { openTestGpu, readAsset, readJsonAsset } from '@weft/wgsl-kernels/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadModel, MODEL_FILES } from './model/base-model.ts';
import { Decoder } from './plan/decoder.ts';
import { GpuModel } from './plan/gpu-model.ts';

let gpu: Gpu;
beforeAll(async () => {
  gpu = await openTestGpu();
});
afterAll(() => gpu.destroy());

describe.each(['stories260K', 'babyllama-105'])('%s with its golden adapter', (name) => {
  const folder = `assets/models/${name}`;
  const load = async () => {
    const read = async (file: string) => [file, await readAsset(`${folder}/${file}`)] as const;
    const files = new Map<string, Uint8Array>(await Promise.all(MODEL_FILES.map(read)));
    const adapter = readAdapter({
      config: new TextDecoder().decode(await readAsset(`${folder}/golden-lora/adapter/adapter_config.json`)),
      weights: await readAsset(`${folder}/golden-lora/adapter/adapter_model.safetensors`),
    });
    const { tokens } = await readJsonAsset<{ tokens: number[] }>(`${folder}/golden.json`);
    return { files, adapter, tokens };
  };
  const farthest = (a: Float32Array, b: Float32Array) =>
    Math.max(...a.map((value, i) => Math.abs(value - (b[i] ?? Number.NaN))));

  it('gives the logits of the merged checkpoint, and of its own export', async () => {
    const { files, adapter, tokens } = await load();
    const base = await loadModel(files);
    const onGpu = await GpuModel.upload(gpu, base);
    const decoder = await Decoder.create(onGpu, tokens.length, adapter);
    const adapted = await decoder.extend(tokens);
    decoder.useAdapter(false);
    const bare = await decoder.extend(tokens);
    expect(farthest(adapted, bare)).toBeGreaterThan(0.01);
    decoder.useAdapter(true);
    expect(await decoder.extend(tokens)).toEqual(adapted);
    decoder.destroy();

    const exported = writeAdapter(adapter);
    const again = readAdapter({
      config: exported['adapter_config.json'],
      weights: exported['adapter_model.safetensors'],
    });
    const second = await Decoder.create(onGpu, tokens.length, again);
    expect(await second.extend(tokens)).toEqual(adapted);
    second.destroy();

    const { plan, pieces } = mergeAdapter(base.checkpoint, adapter, { dtype: 'F32' });
    const merged = new Uint8Array(plan.size);
    let at = 0;
    for await (const piece of pieces()) {
      merged.set(piece, at);
      at += piece.length;
    }
    const whole = await GpuModel.upload(gpu, await loadModel(new Map([...files, ['model.safetensors', merged]])));
    const plain = await Decoder.create(whole, tokens.length);
    expect(farthest(await plain.extend(tokens), adapted)).toBeLessThan(1e-4);
    plain.destroy();
    whole.destroy();
    onGpu.destroy();
  });
});
