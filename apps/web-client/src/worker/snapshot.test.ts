import type { Manifest, RunView } from '@weft/protocol';
import type { SessionState } from '@weft/volunteer';
import { describe, expect, it } from 'vitest';
import { deviceLabel, tabState } from './snapshot.ts';

const session: SessionState = {
  stage: 'waiting',
  connected: true,
  paused: false,
  finishing: false,
  clientId: 'c1',
  run: null,
  round: null,
  phaseEndsAt: 1_500,
  manifest: null,
  device: null,
  proposal: null,
  ownLimits: { maxMemoryBytes: null, maxRank: null, maxUploadBytes: null },
  data: { own: false, task: null, examples: null },
  lease: null,
  download: null,
  progress: null,
  compiling: null,
  losses: [
    { round: 1, step: 1, loss: 5 },
    { round: 1, step: 2, loss: 4 },
  ],
  upload: null,
  receipts: [],
  totals: { rounds: 0, targetTokens: 0, uploadBytes: 0 },
  waitingFor: 'Waiting for the round to open.',
  note: null,
  error: null,
  outcome: null,
};
const facts = {
  leaving: [],
  storageNote: null,
  helping: true,
  asksToDownload: false,
  missingBytes: 0,
  clockOrigin: 1_000_000,
};

describe('what the page is told', () => {
  it('turns the session’s clock into the calendar’s and keeps the losses in order', () => {
    const state = tabState(session, facts);
    expect(state.phaseEndsAt).toBe(1_001_500);
    expect(state.losses).toEqual([5, 4]);
    expect(state.status).toBe('Waiting for the round to open.');
  });

  it('counts the model’s files, not the tasks’, and names tasks by their titles', () => {
    const file = { task: null, sha256: 'a'.repeat(64), pieces: [] };
    const manifest: Manifest = {
      pieceBytes: 4,
      model: { name: 'm', licence: 'MIT', parameters: 1 },
      tasks: [{ name: 'rooms', title: 'Rooms of a house', definition: '', licence: 'MIT', trainRows: 3, testRows: 1 }],
      files: [
        { ...file, kind: 'model', name: 'config.json', bytes: 10 },
        { ...file, kind: 'model', name: 'model.safetensors', bytes: 90 },
        { ...file, kind: 'task', task: 'rooms', name: 'train.jsonl', bytes: 1_000 },
      ],
    };
    const settings = { tasks: ['rooms', 'gone'] } as RunView['settings'];
    const state = tabState({ ...session, manifest, run: { settings } as RunView }, facts);
    expect(state.modelBytes).toBe(100);
    expect(state.run?.tasks.map((task) => [task.name, task.title, task.trainRows])).toEqual([
      ['rooms', 'Rooms of a house', 3],
      ['gone', 'gone', 0],
    ]);
  });

  it('survives the way to the page: nothing in it that a message cannot carry', () => {
    expect(structuredClone(tabState(session, facts))).toEqual(tabState(session, facts));
  });

  it('names the GPU by what its owner knows', () => {
    const adapter = { vendor: 'intel', architecture: 'xe', device: '', description: '', software: false };
    expect(deviceLabel({ adapter })).toBe('intel xe');
    expect(deviceLabel({ adapter: { ...adapter, description: 'Intel(R) Iris(R) Xe Graphics' } })).toBe(
      'Intel(R) Iris(R) Xe Graphics',
    );
    expect(deviceLabel({ adapter: { ...adapter, vendor: '', architecture: '' } })).toBe('GPU without a name');
  });
});
