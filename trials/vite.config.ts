import { libraryConfig } from '../vite.library.ts';

export default libraryConfig(import.meta.dirname, {
  chaos: 'src/chaos.ts',
  load: 'src/load.ts',
  'honest-clients': 'src/hostile/honest.ts',
  'ingest-sink': 'src/ingest/sink.ts',
  'ingest-clients': 'src/ingest/clients.ts',
});
