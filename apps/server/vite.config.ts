import { libraryConfig } from '../../vite.library.ts';

export default libraryConfig(import.meta.dirname, {
  index: 'src/index.ts',
  coordinator: 'src/coordinator/index.ts',
  merge: 'src/merge/index.ts',
  'merge-worker': 'src/merge/worker.ts',
  'database-worker': 'src/store/database-worker.ts',
  'bench-read-outs': 'bench/read-outs.ts',
});
