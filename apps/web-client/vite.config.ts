// The two pages: volunteer (/) and admin (/admin). The server serves dist/ as it stands.
import { resolve } from 'node:path';
import preact from '@preact/preset-vite';
import { defaultClientConditions, defineConfig } from 'vite';

const root = import.meta.dirname;

export default defineConfig({
  root,
  logLevel: 'warn',
  plugins: [preact()],
  resolve: { conditions: ['@weft/source', ...defaultClientConditions] },
  worker: { format: 'es' },
  build: {
    target: 'es2022',
    // Every browser with WebGPU has light-dark() and oklch(); older syntax would only double the style sheets.
    cssTarget: ['chrome123', 'firefox128', 'safari18'],
    // The content security policy allows files of this origin, not data: addresses.
    assetsInlineLimit: 0,
    outDir: 'dist',
    emptyOutDir: true,
    rollupOptions: { input: { volunteer: resolve(root, 'index.html'), admin: resolve(root, 'admin.html') } },
  },
});
