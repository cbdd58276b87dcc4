import { libraryConfig } from '../../vite.library.ts';

export default libraryConfig(import.meta.dirname, { index: 'src/index.ts', testing: 'src/testing/index.ts' });
