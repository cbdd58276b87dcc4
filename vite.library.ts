// How a package or a Node application of this repository is built: one ES module per entry into dist/, every
// dependency left outside, WGSL inlined by `?raw`. The pages have a configuration of their own.
import { resolve } from 'node:path';
import { defineConfig, type UserConfig } from 'vite';

/** `entries` maps a name in dist/ to its source, for example `{ index: 'src/index.ts' }`. */
export function libraryConfig(root: string, entries: Record<string, string>): UserConfig {
  return defineConfig({
    root,
    logLevel: 'warn',
    build: {
      target: 'node20.19',
      outDir: 'dist',
      emptyOutDir: true,
      minify: false,
      sourcemap: true,
      lib: {
        entry: Object.fromEntries(Object.entries(entries).map(([name, path]) => [name, resolve(root, path)])),
        formats: ['es'],
      },
      rollupOptions: {
        external: (id) =>
          !id.startsWith('.') && !id.startsWith('/') && !/^[A-Za-z]:[\\/]/.test(id) && !id.startsWith('\0'),
      },
    },
  });
}
