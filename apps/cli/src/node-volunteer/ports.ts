// The ports of a volunteer in Node: a real socket, real files, the GPU through Dawn.
import { NAMESPACES } from '@weft/protocol';
import { createLocalTrainer } from '@weft/trainer';
import {
  type Clock,
  type Downloads,
  httpDownloads,
  type Identities,
  RECONNECTION,
  type Storage,
  socketTransport,
  systemClock,
  type Trainer,
  type Transport,
} from '@weft/volunteer';
import { io } from 'socket.io-client';
import { openNodeGpu } from '../gpu.ts';
import { fileStorage } from './file-storage.ts';
import type { Role } from './keys.ts';
import { openStateFolder } from './state-folder.ts';

export const CLIENT = { kind: 'cli', version: '0.1.0' } as const;

/** Opens a trainer on a fresh device. Throws CommandError 'no-gpu'. */
export async function openNodeTrainer(): Promise<Trainer> {
  return createLocalTrainer(await openNodeGpu(), { deviceMemoryGiB: null });
}

export interface NodePorts {
  readonly transport: Transport;
  readonly downloads: Downloads;
  readonly storage: Storage;
  readonly identities: Identities;
  readonly trainer: Trainer;
  readonly clock: Clock;
  /** Frees the folder; transport and trainer are closed by the session. */
  release(): void;
}

export interface NodePortOptions {
  readonly origin: string;
  readonly stateDir: string;
  readonly role: Role;
  /** Told of messages of the server that this version cannot read. */
  readonly onInvalidNotice: (error: Error) => void;
}

/** Opens everything a session needs. What was opened before a failure is closed again. */
export async function openNodePorts(options: NodePortOptions): Promise<NodePorts> {
  const { origin, stateDir, role, onInvalidNotice } = options;
  const folder = openStateFolder(stateDir, role);
  try {
    const trainer = await openNodeTrainer();
    const clock = systemClock();
    const socket = io(`${origin}${NAMESPACES.volunteer}`, {
      transports: ['websocket', 'polling'],
      ...RECONNECTION,
      tryAllTransports: true,
    });
    return {
      transport: socketTransport(socket, { clock, onInvalidNotice }),
      downloads: httpDownloads(origin),
      storage: fileStorage(folder.path),
      identities: folder.identities,
      trainer,
      clock,
      release: () => folder.close(),
    };
  } catch (error) {
    folder.close();
    throw error;
  }
}
