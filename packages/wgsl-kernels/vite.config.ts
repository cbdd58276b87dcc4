import { libraryConfig } from '../../vite.library.ts';

export default libraryConfig(import.meta.dirname, {
  index: 'src/index.ts',
  node: 'src/node.ts',
  testing: 'src/testing/index.ts',
});
