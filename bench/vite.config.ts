// Two bundles' worth of code in one build: the command line for Node, and the suite that Node and the page both load. The
// libraries that are measured are inside, since the page has no node_modules; what only Node has stays outside.
import { resolve } from 'node:path';
import { defaultClientConditions, defineConfig } from 'vite';

const root = import.meta.dirname;
const NODE_ONLY = ['webgpu', 'playwright', 'commander', '@weft/e2e/fleet'];

export default defineConfig({
  root,
  logLevel: 'error',
  resolve: {
    conditions: ['@weft/source', ...defaultClientConditions],
    alias: [{ find: /^util$/, replacement: resolve(root, 'src/peers/util-for-tfjs.ts') }],
  },
  build: {
    target: 'es2022',
    outDir: 'dist',
    emptyOutDir: true,
    minify: false,
    lib: { entry: { bench: resolve(root, 'src/main.ts'), suite: resolve(root, 'src/suite.ts') }, formats: ['es'] },
    rollupOptions: {
      external: (id) => id.startsWith('node:') || NODE_ONLY.includes(id),
    },
  },
});
