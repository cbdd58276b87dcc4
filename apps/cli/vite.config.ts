import { libraryConfig } from '../../vite.library.ts';

export default libraryConfig(import.meta.dirname, {
  weft: 'src/weft.ts',
  'merge-worker': 'src/commands/merge/worker.ts',
});
