// What to train on: the run's sample tasks, or a file of the volunteer's own, which is read here and never sent.
import { signal } from '@preact/signals';
import { quantity } from '../shared/format.ts';
import type { DataCheck, DataWish, TabState } from '../worker/api.ts';
import { api } from './tab-link.ts';
import { fileSentence, privacySentence, verdictOf } from './words.ts';

const kind = signal<'task' | 'own'>('task');
/** '' for the next by turns. */
const task = signal('');
const file = signal<File | null>(null);
const check = signal<DataCheck | null>(null);
const consent = signal(false);
/** What is missing from the choice, said when Start is pressed. */
const missing = signal<'file' | 'consent' | null>(null);

/** The choice as it stands; null, with the reason shown by its field, when something is missing. */
export function takeWish(): DataWish | null {
  if (kind.value === 'task') return { kind: 'task', task: task.value === '' ? null : task.value };
  missing.value = !file.value || !check.value?.ok ? 'file' : consent.value ? null : 'consent';
  if (missing.value !== null || !file.value) {
    document.getElementById(missing.value === 'consent' ? 'own-consent' : 'own-file')?.focus();
    return null;
  }
  return { kind: 'own', file: file.value, consent: true };
}

/** Shows what the worker found wrong with a file when it was about to start. */
export function refuseFile(refusal: DataCheck): void {
  check.value = refusal;
}

async function readFile(chosen: File | null): Promise<void> {
  file.value = chosen;
  check.value = null;
  missing.value = null;
  if (!chosen) return;
  const result = await api().checkFile(chosen);
  // Another file may have been chosen while this one was read.
  if (file.value === chosen) check.value = result;
}

export function DataChoice({ state }: { state: TabState | null }) {
  const run = state?.run ?? null;
  const own = run?.allowOwnFiles ?? true;
  return (
    <fieldset class="data" disabled={!run}>
      <legend>Data</legend>
      <div class="data-row">
        <label class="choice">
          <input
            type="radio"
            name="data"
            checked={kind.value === 'task'}
            onChange={() => {
              kind.value = 'task';
            }}
          />
          the run’s sample tasks
        </label>
        {kind.value === 'task' && (
          <select
            aria-label="Sample task"
            value={task.value}
            onChange={(event) => {
              task.value = event.currentTarget.value;
            }}
          >
            <option value="">next by turns</option>
            {run?.tasks.map((each) => (
              <option key={each.name} value={each.name}>
                {each.title} ({quantity(each.trainRows, 'row')})
              </option>
            ))}
          </select>
        )}
      </div>
      {own && (
        <label class="choice">
          <input
            type="radio"
            name="data"
            checked={kind.value === 'own'}
            onChange={() => {
              kind.value = 'own';
            }}
          />
          my own file …
        </label>
      )}
      {own && kind.value === 'own' && <OwnFile state={state} />}
    </fieldset>
  );
}

function OwnFile({ state }: { state: TabState | null }) {
  const result = check.value;
  const upload = state ? (verdictOf(state)?.uploadBytes ?? null) : null;
  return (
    <div class="own-file">
      <div class="field">
        <label for="own-file">File of JSON lines</label>
        <input
          id="own-file"
          type="file"
          accept=".jsonl,.ndjson,.json,.txt"
          aria-describedby="own-file-hint own-file-result"
          onChange={(event) => void readFile(event.currentTarget.files?.[0] ?? null)}
        />
        <span class="hint" id="own-file-hint">
          Each line is <code>{'{"prompt": "…", "completion": "…"}'}</code>, a chat (<code>messages</code>), an{' '}
          <code>instruction</code> with its <code>output</code>, or plain <code>text</code>. It is read in this tab.
        </span>
        <span id="own-file-result" data-testid="file-result">
          {missing.value === 'file' && !result && <span class="field-error">Choose a file first.</span>}
          {file.value && !result && <span class="quiet small">Reading…</span>}
          {result?.ok === false && <span class="field-error">{result.message}</span>}
          {result?.ok && (
            <span class="small">
              {file.value?.name}: {fileSentence(result)}
            </span>
          )}
        </span>
      </div>
      <p>{privacySentence(upload)}</p>
      <label class="choice consent">
        <input
          id="own-consent"
          type="checkbox"
          checked={consent.value}
          aria-describedby={missing.value === 'consent' ? 'consent-error' : undefined}
          onChange={(event) => {
            consent.value = event.currentTarget.checked;
            if (consent.value && missing.value === 'consent') missing.value = null;
          }}
        />
        <span>
          I may use this text, and I agree that updates computed from it are sent and merged. The operator may be able
          to reconstruct parts of it.
        </span>
      </label>
      {missing.value === 'consent' && (
        <span class="field-error" id="consent-error">
          Your agreement is needed to train on your own file.
        </span>
      )}
    </div>
  );
}
