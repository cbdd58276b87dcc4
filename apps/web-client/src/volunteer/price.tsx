// What helping costs, and what leaves the device: before Start, and while it runs.
import { bytes } from '../shared/format.ts';
import type { TabState } from '../worker/api.ts';
import { leavingGroups, privacySentence, verdictOf } from './words.ts';

export function Price({ state }: { state: TabState | null }) {
  const verdict = state ? verdictOf(state) : null;
  const model = state?.modelBytes ?? null;
  const download =
    model === null
      ? '…'
      : state?.missingBytes === 0
        ? `${bytes(model)} model, kept from an earlier visit`
        : `${bytes(model)} download once`;
  return (
    <dl class="price">
      <div>
        <dt>Costs</dt>
        <dd data-testid="costs">
          {download} · {verdict ? bytes(verdict.memoryBytes) : '…'} GPU memory · pause any time
        </dd>
      </div>
      <div>
        <dt>Leaves</dt>
        <dd>
          <details>
            <summary class="tail" data-testid="see-all">
              <span class="plain" data-testid="leaves">
                {verdict ? bytes(verdict.uploadBytes) : '…'} update per round, speed, loss, device limits
              </span>{' '}
              see all
            </summary>
            {state && <Leaving state={state} uploadBytes={verdict?.uploadBytes ?? null} />}
          </details>
        </dd>
      </div>
    </dl>
  );
}

function Leaving({ state, uploadBytes }: { state: TabState; uploadBytes: number | null }) {
  return (
    <div class="leaving" data-testid="leaving">
      <p>{privacySentence(uploadBytes)}</p>
      {leavingGroups(state.leaving).map((group) => (
        <div key={group.title}>
          <h2>{group.title}</h2>
          <ul>
            {group.items.map((item) => (
              <li key={item.words} title={item.fields.join(', ')}>
                {item.words}
              </li>
            ))}
          </ul>
        </div>
      ))}
      <h2>As with any site</h2>
      <ul>
        <li>your network address</li>
      </ul>
    </div>
  );
}
