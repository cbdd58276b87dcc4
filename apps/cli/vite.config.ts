import { libraryConfig } from '../../vite.library.ts';

export default libraryConfig(import.meta.dirname, {
  weft: 'src/weft.ts',
  'load-crew': 'src/load/crew.ts',
  'merge-worker': 'src/commands/merge/worker.ts',
});
